"""Says in the operator's words what the disk or SQLite answered, and what to do about it.

Every OSError and sqlite3 error of this folder becomes a StateError here, so that the advice for "disk full" is written
once. It decides nothing: whoever raised goes on or gives up.
"""

from __future__ import annotations

import errno
import os
import sqlite3

from hostagent.errors import StateError

# Primary result codes, https://www.sqlite.org/rescode.html
_DAMAGED = frozenset({11, 26})  # SQLITE_CORRUPT, SQLITE_NOTADB
_SQLITE_HINTS = {
    3: "give the agent's user write permission on it",
    5: "another process holds a lock on it: close the sqlite3 shell or backup tool that does",
    6: "another process holds a lock on it: close the sqlite3 shell or backup tool that does",
    8: "it is read-only: remount the filesystem read-write, or give the agent's user write permission",
    10: "the disk answered with an error: look at the kernel log (dmesg)",
    13: "the disk is full: free some space there; nothing is lost meanwhile, reading goes on afterwards",
    14: "check that its directory exists and that the agent's user may write there",
}
_OS_HINTS = {
    errno.ENOSPC: "free some space there; nothing is lost meanwhile",
    errno.EDQUOT: "raise the quota of the agent's user or free some space; nothing is lost meanwhile",
    errno.EROFS: "remount the filesystem read-write",
    errno.EACCES: "give the agent's user write permission there",
    errno.EPERM: "give the agent's user write permission there",
    errno.EIO: "look at the kernel log (dmesg) for the disk's own report",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away",
    errno.EEXIST: "a file stands where a directory is needed: move it away",
    errno.EISDIR: "a directory stands where a file is needed: move it away",
    errno.ELOOP: "a symbolic link stands there, which is not followed: remove it",
    errno.EMFILE: "raise the agent's limit of open files (LimitNOFILE) or lower limits.max_open_files",
}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file's content is broken, not that it can't be reached."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def sqlite_fault(path: str | os.PathLike[str], doing: str, error: sqlite3.Error) -> StateError:
    """A StateError for what SQLite answered while `doing` something with the database at `path`."""
    if is_damage(error):
        hint = "restart the agent: it moves the damaged file to quarantine and goes on from its backup"
    else:
        hint = _SQLITE_HINTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    return StateError(f"{os.fspath(path)}: can't {doing}: {error}" + (f" ({hint})" if hint else ""))


def look_fault(path: str | os.PathLike[str], error: OSError) -> StateError:
    """A StateError for a command that only looks: it needs other rights than the agent, who has to write."""
    hint = "use sudo, or run this as the agent's user" if error.errno in {errno.EACCES, errno.EPERM} else ""
    hint = hint or _OS_HINTS.get(error.errno or 0, "")
    return StateError(f"{os.fspath(path)}: can't read it: {error.strerror or error}" + (f" ({hint})" if hint else ""))


def os_fault(path: str | os.PathLike[str], doing: str, error: OSError) -> StateError:
    """A StateError for what the kernel answered while `doing` something at `path`."""
    hint = _OS_HINTS.get(error.errno or 0, "")
    # What stands in the way may be another file: a quarantine that is no directory.
    other = f": {error.filename}" if error.filename not in (None, path, os.fspath(path)) else ""
    said = f"{os.fspath(path)}: can't {doing}: {error.strerror or error}{other}"
    return StateError(said + (f" ({hint})" if hint else ""))
