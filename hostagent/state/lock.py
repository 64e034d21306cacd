"""Keeps two agents out of one directory: a lock file that the kernel releases when its holder dies.

Taken before anything in the directory is read or healed. The file holds the pid of its holder for the error message
only; whether it is held is the kernel's word (flock), so a stale file never blocks a start.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hostagent.errors import StateError
from hostagent.state.faults import os_fault

LOCK_NAME = "lock"


def holder_of(directory: Path) -> int | None:
    """The pid of the process that has the directory; asked of the kernel, so that nobody's claim is in the way."""
    try:
        inode = os.stat(directory / LOCK_NAME).st_ino
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131075 0 EOF, or with "->" in front of a lock that waits
                words = line.split()
                if words[1:2] == ["FLOCK"] and words[5].rpartition(":")[2] == str(inode):
                    return int(words[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


class DirectoryLock:
    """An exclusive claim on a directory, held until close() or the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, directory: Path) -> DirectoryLock:
        """Claim the directory; StateError names the process that has it, or why it can't be claimed."""
        path = directory / LOCK_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise os_fault(path, "open the lock file", error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StateError(
                f"{directory} is in use by another hostagent (pid {holder}): stop that one first, "
                "or give this one a data_dir of its own"
            ) from None
        except OSError as error:
            os.close(fd)
            raise os_fault(path, "lock it", error) from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk has no room for the pid; the lock holds all the same
        return cls(fd)

    def close(self) -> None:
        """Release the directory."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
