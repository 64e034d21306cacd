"""The kernel's events: one inotify instance, the directories it watches, and its records taken apart.

The watcher has two of these, one for names and one for writes, and decides which directories get a watch. This module
only knows how the kernel speaks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EACCES

from inotify_simple import INotify, flags

from hostagent.tail.finding.beneath import NotPermittedError
from hostagent.tail.watching.events import Event, Kind

NAMES = flags.CREATE | flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
"""What happens to names in a directory, and to the directory itself."""

WRITES = flags.MODIFY | flags.CLOSE_WRITE
"""What happens to the files behind the names."""

_GONE = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED)
_REPEATABLE = {int(flags.MODIFY), int(flags.CLOSE_WRITE)}
_IS_DIR = int(flags.ISDIR)
_OVERFLOW = int(flags.Q_OVERFLOW)
_MOVED_SELF = int(flags.MOVE_SELF)
_KINDS = {
    int(flags.CREATE): Kind.CREATED,
    int(flags.MODIFY): Kind.MODIFIED,
    int(flags.CLOSE_WRITE): Kind.CLOSED,
    int(flags.MOVED_FROM): Kind.MOVED_FROM,
    int(flags.MOVED_TO): Kind.MOVED_TO,
    int(flags.DELETE): Kind.DELETED,
}
_HEADER = struct.Struct("=iIII")
_READ_BYTES = 64 * 1024


class KernelWatches:
    """Watches on directories for the events of one mask. OSError if the kernel gives no instance."""

    def __init__(self, mask: flags) -> None:
        self._mask = mask | flags.ONLYDIR
        self._inotify = INotify(nonblocking=True)
        self._descriptors: dict[str, int] = {}
        self._directories: dict[int, list[str]] = {}

    def fileno(self) -> int:
        return int(self._inotify.fileno())

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
        names of them first (as inotify_simple's own reading does) costs several times as much.
        """
        try:
            data = os.read(self.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        repeated: set[bytes] = set()
        moved: set[str] = set()
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
                if mask & _MOVED_SELF:
                    moved.update(self._directories.get(descriptor, ()))
                yield from self._lost(descriptor, mask)
                continue
            kind = _KINDS.get(mask & ~_IS_DIR)
            if kind is None:
                continue
            name = os.fsdecode(record[_HEADER.size :].rstrip(b"\0"))
            for directory in self._directories.get(descriptor, ()):
                yield Event(kind, directory, name, cookie, bool(mask & _IS_DIR))
        if moved:
            yield from self._lost_below(moved)

    def _lost_below(self, moved: set[str]) -> Iterator[Event]:
        """What lies below a directory that was moved has another path, too, of which the kernel says nothing."""
        for directory in list(self._descriptors):
            if any(directory[:at] in moved for at, character in enumerate(directory) if character == "/"):
                self.detach(directory)
                yield Event(Kind.DIRECTORY_GONE, directory)

    def _lost(self, descriptor: int, mask: int) -> Iterator[Event]:
        if mask & _OVERFLOW:
            yield Event(Kind.OVERFLOW, "")
            return
        directories = self._directories.pop(descriptor, [])
        if directories and mask & _MOVED_SELF:
            self._remove(descriptor)
        for directory in directories:
            del self._descriptors[directory]
            if self._mask & flags.DELETE_SELF:
                yield Event(Kind.DIRECTORY_GONE, directory)

    def close(self) -> None:
        """Give all watches back."""
        self._inotify.close()
