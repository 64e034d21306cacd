"""The kernel's events: one inotify instance, the directories it watches, and its records taken apart.

The watcher has two of these, one for names and one for writes, and decides which directories get a watch. This module
only knows how the kernel speaks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EACCES

from hostagent.tail.finding.beneath import NotPermittedError
from hostagent.tail.watching.events import Event, Kind
from hostagent.tail.watching.inotify import Flag, Inotify

NAMES = Flag.CREATE | Flag.MOVED_FROM | Flag.MOVED_TO | Flag.DELETE | Flag.DELETE_SELF | Flag.MOVE_SELF
"""What happens to names in a directory, and to the directory itself."""

WRITES = Flag.MODIFY | Flag.CLOSE_WRITE
"""What happens to the files behind the names."""

_GONE = int(Flag.DELETE_SELF | Flag.MOVE_SELF | Flag.UNMOUNT | Flag.IGNORED)
_REPEATABLE = {int(Flag.MODIFY), int(Flag.CLOSE_WRITE)}
_IS_DIR = int(Flag.ISDIR)
_OVERFLOW = int(Flag.Q_OVERFLOW)
_MOVED_SELF = int(Flag.MOVE_SELF)
_KINDS = {
    int(Flag.CREATE): Kind.CREATED,
    int(Flag.MODIFY): Kind.MODIFIED,
    int(Flag.CLOSE_WRITE): Kind.CLOSED,
    int(Flag.MOVED_FROM): Kind.MOVED_FROM,
    int(Flag.MOVED_TO): Kind.MOVED_TO,
    int(Flag.DELETE): Kind.DELETED,
}
_HEADER = struct.Struct("=iIII")
_READ_BYTES = 64 * 1024


class KernelWatches:
    """Watches on directories for the events of one mask. OSError if the kernel gives no instance."""

    def __init__(self, mask: Flag) -> None:
        self._mask = mask | Flag.ONLYDIR
        self._inotify = Inotify()
        self._descriptors: dict[str, int] = {}
        self._directories: dict[int, list[str]] = {}

    def fileno(self) -> int:
        return self._inotify.fileno()

    def add(self, fd: int, directory: str) -> None:
        """Take a watch on exactly the directory that is open, whatever its path leads to meanwhile.

        Raises NotPermittedError, or OSError where the kernel has no more watches to give.
        """
        try:
            descriptor = self._inotify.add_watch(f"/proc/self/fd/{fd}", self._mask)
        except OSError as error:
            if error.errno == EACCES:
                raise NotPermittedError(
                    directory, "can't be listed", "give the agent's user read permission or CAP_DAC_READ_SEARCH"
                ) from error
            raise
        if self._descriptors.get(directory) != descriptor:
            self.detach(directory)
            self._descriptors[directory] = descriptor
            self._directories.setdefault(descriptor, []).append(directory)

    def detach(self, directory: str) -> None:
        """Give back the watch of a directory, if it has one and no other path shares it."""
        descriptor = self._descriptors.pop(directory, None)
        if descriptor is None:
            return
        sharing = self._directories[descriptor]
        sharing.remove(directory)
        if not sharing:
            del self._directories[descriptor]
            self._remove(descriptor)

    def _remove(self, descriptor: int) -> None:
        try:
            self._inotify.rm_watch(descriptor)
        except OSError:  # the kernel has dropped it already, its directory being gone
            pass

    def read(self) -> Iterator[Event]:
        """Take the queued events, each repetition within one go once.

        The raw records are compared before they are taken apart: under a flood most of them say the same, and making
        names of them first costs several times as much.
        """
        try:
            data = os.read(self.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        repeated: set[bytes] = set()
        at = 0
        while at < len(data):
            descriptor, mask, cookie, name_bytes = _HEADER.unpack_from(data, at)
            end = at + _HEADER.size + name_bytes
            record = data[at:end]
            at = end
            if mask in _REPEATABLE:
                if record in repeated:
                    continue
                repeated.add(record)
            if mask & (_GONE | _OVERFLOW):
                yield from self._lost(descriptor, mask)
                continue
            kind = _KINDS.get(mask & ~_IS_DIR)
            if kind is None:
                continue
            name = os.fsdecode(record[_HEADER.size :].rstrip(b"\0"))
            for directory in self._directories.get(descriptor, ()):
                yield Event(kind, directory, name, cookie, bool(mask & _IS_DIR))

    def _lost(self, descriptor: int, mask: int) -> Iterator[Event]:
        if mask & _OVERFLOW:
            yield Event(Kind.OVERFLOW, "")
            return
        directories = self._directories.pop(descriptor, [])
        if directories and mask & _MOVED_SELF:
            self._remove(descriptor)
        for directory in directories:
            del self._descriptors[directory]
            if self._mask & Flag.DELETE_SELF:
                yield Event(Kind.DIRECTORY_GONE, directory)

    def close(self) -> None:
        """Give all watches back."""
        self._inotify.close()
