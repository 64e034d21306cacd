"""Tells the reader which directories something happened in: the first step after a target is known.

Directories are watched, never single files. Where the kernel gives no watch (its limit is reached) or no events
(network file systems), the directory is polled instead, and `notices` says so. The watcher opens no log and decides
nothing; it reports names.
"""

from __future__ import annotations

import os
import select
import threading
from errno import EMFILE, ENFILE, ENOMEM, ENOSPC

from hostagent.clock import Clock
from hostagent.hookspecs import Notice
from hostagent.tail.files.identity import filesystem_of
from hostagent.tail.finding.beneath import NotPermittedError, NotThereError, OpenError, beneath, open_directory
from hostagent.tail.watching.events import Event, Kind
from hostagent.tail.watching.kernel import NAMES, WRITES, KernelWatches
from hostagent.tail.watching.poll import Poller

__all__ = ["Event", "Kind", "Watcher"]

RETRY_WATCHES_S = 60.0

# statfs(2) magic of file systems whose files change without this kernel's doing, hence without its events.
EVENTLESS = {
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
    """Watches directories. One thread uses it; `wake`, `notices` and `polled` may be called from any.

    Names and writes have an inotify instance each: whoever lets writes pile up still hears of names at once, and a
    flood of writes can't push names out of their queue. It costs a second watch per directory.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._poller = Poller(clock)
        self._reasons: dict[str, str] = {}  # polled directory → why
        self._refused: dict[str, Notice] = {}
        self._roots: dict[str, str] = {}
        self._seen_last: list[Event] = []
        self._retry_s = 0.0
        self._wake_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._anything, self._any_name = select.poll(), select.poll()
        for poll in (self._anything, self._any_name):
            poll.register(self._wake_fd, select.POLLIN)
        self._kernel: tuple[KernelWatches, ...] = ()
        self._limit = ""
        try:
            self._kernel = names, writes = KernelWatches(NAMES), KernelWatches(WRITES)
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE, ENOMEM):
                raise
            self._limit = "fs.inotify.max_user_instances"
        else:
            self._any_name.register(names, select.POLLIN)
            self._anything.register(names, select.POLLIN)
            self._anything.register(writes, select.POLLIN)

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
        reason = EVENTLESS.get(filesystem_of(fd), "")
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
        if not self._kernel:
            raise OSError(EMFILE, os.strerror(EMFILE))
        for watches in self._kernel:
            watches.add(fd, directory)

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
        for watches in self._kernel:
            watches.detach(directory)

    def read(self, timeout_s: float | None) -> list[Event]:
        """Events since the last call; waits for the first one, for `wake`, or for the time to pass."""
        due_s = self._poller.due_s()
        if self._seen_last:
            timeout_s = 0.0
        if due_s is not None and (timeout_s is None or due_s < timeout_s):
            timeout_s = due_s
        events = self._wait(self._anything, timeout_s)
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

    def read_names(self, timeout_s: float) -> list[Event]:
        """The same for what happened to names only; writes, and directories that are polled, stay for `read`."""
        return self._wait(self._any_name, timeout_s)

    def has_names(self) -> bool:
        """Whether `read_names` would return at once."""
        return bool(self._any_name.poll(0))

    def _wait(self, poll: select.poll, timeout_s: float | None) -> list[Event]:
        ready = {fd for fd, _ in poll.poll(None if timeout_s is None else max(0.0, timeout_s * 1000))}
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if not self._kernel:
            return []
        names, writes = self._kernel
        # Taken first and told last: of every file that was written to, it is told sooner that it appeared.
        written = list(writes.read()) if writes.fileno() in ready else []
        events: list[Event] = []
        if written or names.fileno() in ready:
            while more := list(names.read()):
                events += more
        for event in events:
            if event.kind is Kind.DIRECTORY_GONE:
                self._forget(event.directory)
        return events + written

    def _retry_watches(self) -> None:
        """Ask for real watches again now and then: the limit may have been raised, or others may have let go."""
        if not self._limit or not self._kernel or self._clock.monotonic_s() < self._retry_s:
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
        for watches in self._kernel:
            watches.close()
