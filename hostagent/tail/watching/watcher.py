"""Tells the reader which directories something happened in: the first step after a target is known.

One inotify instance watches directories, never single files. Where the kernel gives no watch (its limit is reached)
or no events (network file systems), the directory is polled instead, and `notices` says so. The watcher opens no log
and decides nothing; it reports names.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from collections.abc import Iterator
from errno import EACCES, EMFILE, ENFILE, ENOMEM, ENOSPC

from inotify_simple import INotify, flags

from hostagent.clock import Clock
from hostagent.hookspecs import Notice
from hostagent.tail.files.identity import filesystem_of
from hostagent.tail.finding.beneath import NotPermittedError, NotThereError, OpenError, beneath, open_directory
from hostagent.tail.watching.events import Event, Kind
from hostagent.tail.watching.poll import Poller

__all__ = ["Event", "Kind", "Watcher"]

RETRY_WATCHES_S = 60.0

_MASK = (
    flags.CREATE
    | flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
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

# statfs(2) magic of file systems whose files change without this kernel's doing, hence without its events.
_EVENTLESS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9p",
    0x65735546: "FUSE",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x786F4256: "vboxsf",
}


class Watcher:
    """Watches directories. One thread uses it; `wake`, `notices` and `polled` may be called from any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._poller = Poller(clock)
        self._reasons: dict[str, str] = {}  # polled directory → why
        self._refused: dict[str, Notice] = {}
        self._roots: dict[str, str] = {}
        self._descriptors: dict[str, int] = {}
        self._directories: dict[int, list[str]] = {}
        self._seen_last: list[Event] = []
        self._retry_s = 0.0
        self._wake_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._inotify: INotify | None = None
        self._limit = ""
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE, ENOMEM):
                raise
            self._limit = "fs.inotify.max_user_instances"
        else:
            self._poll.register(self._inotify.fileno(), select.POLLIN)

    def watch(self, directory: str, root: str = "/") -> bool:
        """Report events of a directory from now on; False if it isn't there or can't be read.

        `directory` is the host's path; what follows `root` in it is resolved beneath that root. Calling again is
        cheap, and finds out whether the path leads to another directory by now. Watch first, then list: what appears
        in between is reported.
        """
        try:
            fd = self._open(directory, root)
        except NotThereError:
            self._forget(directory)
            return False
        except OpenError as error:
            self._forget(directory)
            self._refused[directory] = Notice(directory, str(error), error.hint)
            return False
        try:
            return self._attach(fd, directory, root)
        finally:
            os.close(fd)

    @staticmethod
    def _open(directory: str, root: str) -> int:
        return open_directory(root, beneath(root, directory), readable=False)

    def _attach(self, fd: int, directory: str, root: str) -> bool:
        self._refused.pop(directory, None)
        reason = _EVENTLESS.get(filesystem_of(fd), "")
        if not reason:
            try:
                self._add(fd, directory)
            except NotPermittedError as error:
                self._forget(directory)
                self._refused[directory] = Notice(directory, str(error), error.hint)
                return False
            except OSError as error:
                if error.errno not in (ENOSPC, ENOMEM, EMFILE):
                    raise
                reason = self._limit = self._limit or "fs.inotify.max_user_watches"
        self._roots[directory] = root
        if not reason:
            if self._reasons.pop(directory, None):
                # Watched by now, so this last look closes the gap between the look before and the watch.
                self._seen_last += self._poller.look(directory)
                self._poller.discard(directory)
            return True
        self._detach(directory)
        try:
            self._poller.add(directory, root)
        except OpenError as error:
            self._forget(directory)
            self._refused[directory] = Notice(directory, str(error), error.hint)
            return False
        self._reasons[directory] = reason
        return True

    def _add(self, fd: int, directory: str) -> None:
        """Take a kernel watch on exactly the directory that is open, whatever its path leads to meanwhile."""
        if self._inotify is None:
            raise OSError(EMFILE, os.strerror(EMFILE))
        try:
            descriptor = self._inotify.add_watch(f"/proc/self/fd/{fd}", _MASK)
        except OSError as error:
            if error.errno == EACCES:
                raise NotPermittedError(
                    directory, "can't be listed", "give the agent's user read permission or CAP_DAC_READ_SEARCH"
                ) from error
            raise
        if self._descriptors.get(directory) != descriptor:
            self._detach(directory)
            self._descriptors[directory] = descriptor
            self._directories.setdefault(descriptor, []).append(directory)

    def unwatch(self, directory: str) -> None:
        """Report no more events of a directory."""
        self._forget(directory)

    def _forget(self, directory: str) -> None:
        self._detach(directory)
        self._poller.discard(directory)
        self._reasons.pop(directory, None)
        self._refused.pop(directory, None)
        self._roots.pop(directory, None)

    def _detach(self, directory: str) -> None:
        descriptor = self._descriptors.pop(directory, None)
        if descriptor is None:
            return
        sharing = self._directories[descriptor]
        sharing.remove(directory)
        if not sharing:
            del self._directories[descriptor]
            self._remove(descriptor)

    def _remove(self, descriptor: int) -> None:
        assert self._inotify is not None
        try:
            self._inotify.rm_watch(descriptor)
        except OSError:  # the kernel has dropped it already, its directory being gone
            pass

    def read(self, timeout_s: float | None) -> list[Event]:
        """Events since the last call; waits for the first one, for `wake`, or for the time to pass."""
        due_s = self._poller.due_s()
        if self._seen_last:
            timeout_s = 0.0
        if due_s is not None and (timeout_s is None or due_s < timeout_s):
            timeout_s = due_s
        ready = self._poll.poll(None if timeout_s is None else max(0.0, timeout_s * 1000))
        events: list[Event] = []
        for fd, _ in ready:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            else:
                events += self._kernel_events(fd)
        if due_s is not None and self._poller.due_s() == 0.0:
            found = self._poller.round()
            for event in found:
                if event.kind is Kind.DIRECTORY_GONE:
                    self._forget(event.directory)
            events += found
            self._retry_watches()
        if self._seen_last:
            events += self._seen_last
            self._seen_last = []
        return events

    def _kernel_events(self, fd: int) -> Iterator[Event]:
        """Take the queued events, each repetition within one go once.

        The raw records are compared before they are taken apart: under a flood most of them say the same, and making
        names of them first (as inotify_simple's own reading does) costs several times as much.
        """
        data = os.read(fd, _READ_BYTES)
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
            elif repeated:
                repeated.clear()
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
            self._roots.pop(directory, None)
            yield Event(Kind.DIRECTORY_GONE, directory)

    def _retry_watches(self) -> None:
        """Ask for real watches again now and then: the limit may have been raised, or others may have let go."""
        if not self._limit or self._inotify is None or self._clock.monotonic_s() < self._retry_s:
            return
        self._retry_s = self._clock.monotonic_s() + RETRY_WATCHES_S
        for directory in [directory for directory, reason in self._reasons.items() if reason == self._limit]:
            self.watch(directory, self._roots[directory])
            if directory in self._reasons:
                return

    @property
    def polled(self) -> frozenset[str]:
        """The directories that are polled because the kernel does not watch them."""
        return self._poller.directories

    def notices(self) -> list[Notice]:
        """What is not watched as it should be, and what to do about it."""
        notices = list(self._refused.values())
        polled: dict[str, list[str]] = {}
        for directory, reason in list(self._reasons.items()):
            polled.setdefault(reason, []).append(directory)
        for reason, directories in polled.items():
            first = min(directories)
            subject = first if len(directories) == 1 else f"{first} and {len(directories) - 1} more directories"
            if reason == self._limit:
                hint = f"raise the sysctl {reason}; watches are tried again every {RETRY_WATCHES_S:.0f} s"
                notices.append(Notice(subject, f"polled, not watched: the limit {reason} is reached", hint))
            else:
                notices.append(Notice(subject, f"polled, not watched: {reason} sends no events for others' writes"))
        return notices

    def wake(self) -> None:
        """Make a waiting `read` return now."""
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Give all watches back."""
        with self._wake_lock:
            os.close(self._wake_fd)
            self._wake_fd = -1
        if self._inotify is not None:
            self._inotify.close()
