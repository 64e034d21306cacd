"""Opens paths beneath a root that somebody else controls, without ever leaving it.

A container's files belong to its tenant, who may swap a directory for a symbolic link at any moment. The kernel
(openat2 with RESOLVE_IN_ROOT) resolves every step inside the root; checks made before opening could not. Only regular
files are opened for reading: a FIFO, a device or a file of /proc is looked at through O_PATH and refused untouched.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from errno import EACCES, EAGAIN, EINVAL, EIO, ELOOP, EMFILE, ENFILE, ENOENT, ENOTDIR, EPERM, EXDEV
from functools import cache

from hostagent.errors import HostagentError
from hostagent.tail.files.identity import filesystem_of, kind_of

_OPENAT2 = 437  # the same number on every architecture
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_OPEN_HOW = struct.Struct("=QQQ")
_LOST_RACES = 64
_PROCESS_ROOT = re.compile(r"/proc/\d+/root/?$")

# Files here look regular but are made up while they are read: some consume what they show (kmsg, trace_pipe), some show
# the whole machine's memory (kcore). No log lives in them.
_PSEUDO_FILESYSTEMS = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0xCAFE4A11: "bpf",
    0x62656570: "configfs",
}

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class OpenError(HostagentError, OSError):
    """A path can't be opened as a log; `hint` says what to do about it, empty where nothing needs doing.

    It is an OSError with the kernel's number, for those who take every failure of a file alike.
    """

    number = EIO

    def __init__(self, path: str, message: str, hint: str = "", number: int = 0) -> None:
        super().__init__(number or self.number, message, path)
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.path!r}: {self.strerror}"


class NotThereError(OpenError, FileNotFoundError):
    """No such path, or a step of it is no directory: it may never have existed, or vanish while it is looked at."""

    number = ENOENT


class NotPermittedError(OpenError, PermissionError):
    """The agent's user may not read it; this can change without any event."""

    number = EACCES


class NotBeneathError(OpenError):
    """A symbolic link that is not followed: it points out of the root, in a circle, or through /proc."""

    number = ELOOP


class NoDescriptorError(OpenError):
    """The process or the machine has no file descriptor left: close idle files and try again."""

    number = EMFILE


class NotRegularError(OpenError):
    """A directory, FIFO, socket, device or a file of a pseudo file system; `kind` names which."""

    number = EINVAL

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path, f"is a {kind}, not a log file", "exclude it, or narrow the source's include pattern")
        self.kind = kind


def open_beneath(root: str, path: str, *, follow: bool | None = None) -> int:
    """Open a regular file for reading; the path is resolved as a process with this root directory would.

    `follow` says whether the last step may be a symbolic link: by default only beneath `/`, where links to logs are
    the administrator's (`/var/log/containers/*`). Blocks on nothing and has no effect on what it refuses.
    """
    follow = root == "/" if follow is None else follow
    found = _resolve(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        _refuse_irregular(found, path)
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OpenError:
        raise
    except OSError as error:
        raise as_open_error(path, error) from error
    finally:
        os.close(found)


def open_directory(root: str, path: str, *, follow: bool = True, readable: bool = True) -> int:
    """Open a directory beneath the root, for listing or, if not `readable`, only to name it (O_PATH)."""
    flags = os.O_DIRECTORY | (os.O_RDONLY if readable else os.O_PATH) | (0 if follow else os.O_NOFOLLOW)
    return _resolve(root, path, flags)


def listed(
    directory_fd: int, wanted: Callable[[int], bool] = lambda _inode: True
) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of everything in a directory, links not followed; what vanishes meanwhile is left out.

    `wanted` is asked for each inode, which costs far less than the status.
    """
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            if not wanted(entry.inode()):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield entry.name, status


def join(root: str, path: str) -> str:
    """The host's name for a path beneath a root."""
    if root == "/":
        return path
    # Directories are known by one name only: the root itself is written without a slash at its end.
    return root.rstrip("/") + ("" if path == "/" else path)


def beneath(root: str, directory: str) -> str:
    """The path beneath a root of a host's name made by `join`."""
    return directory if root == "/" else directory.removeprefix(root.rstrip("/")) or "/"


def path_of(fd: int) -> str:
    """Where the kernel says an open descriptor is now: symbolic links gone, ` (deleted)` behind it once unlinked."""
    return os.readlink(f"/proc/self/fd/{fd}")


def _refuse_irregular(fd: int, path: str) -> None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISLNK(mode):
        raise NotBeneathError(path, "is a symbolic link", "collect the file it points to")
    if not stat.S_ISREG(mode):
        raise NotRegularError(path, kind_of(mode))
    if pseudo := pseudo_filesystem(fd):
        raise NotRegularError(path, f"file of a {pseudo} file system")


def pseudo_filesystem(fd: int) -> str:
    """The name of the file system a descriptor lies on if what is in it is made up by the kernel, else empty."""
    return _PSEUDO_FILESYSTEMS.get(filesystem_of(fd), "")


def _resolve(root: str, path: str, flags: int) -> int:
    if "\0" in path:
        raise NotThereError(path, "has a NUL in its name")
    try:
        if root == "/":
            return _open_on_host(path, flags)
        root_fd = _open_root(root)
        try:
            if _kernel_resolves():
                return _openat2(root_fd, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
            return _walk(root_fd, path, flags)
        finally:
            os.close(root_fd)
    except OSError as error:
        raise as_open_error(path, error) from error


def _open_root(root: str) -> int:
    """Open a root, which is named without links: one on the way to it was put there since, to lead elsewhere.

    Only a container's root as its process sees it is a link by nature.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    if _PROCESS_ROOT.search(root) or not _kernel_resolves():
        return os.open(root, flags | os.O_CLOEXEC)
    return _openat2(_AT_FDCWD, root, flags, _RESOLVE_NO_SYMLINKS)


def _open_on_host(path: str, flags: int) -> int:
    if _kernel_resolves():
        return _openat2(_AT_FDCWD, path, flags, _RESOLVE_NO_MAGICLINKS)
    return os.open(path, flags | os.O_CLOEXEC)


@cache
def _kernel_resolves() -> bool:
    """Whether openat2 is there: Linux 5.6, and no sandbox that refuses system calls it has never heard of."""
    try:
        os.close(_openat2(_AT_FDCWD, "/", os.O_PATH, 0))
    except OSError:
        return False
    return True


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path)
    for _ in range(_LOST_RACES):
        fd = _syscall(_OPENAT2, directory, name, how, len(how))
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        # The kernel can't vouch for a `..` while something is renamed anywhere on the machine, and asks to try again.
        if number != EAGAIN:
            break
    else:
        number = ENOENT
    raise OSError(number, os.strerror(number), path)


def _walk(root_fd: int, path: str, flags: int) -> int:
    """Step by step without following any link, for kernels without openat2: safe, and refuses every link."""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if ".." in steps:
        raise OSError(ELOOP, os.strerror(ELOOP), path)
    here = os.dup(root_fd)
    for number, step in enumerate(steps, start=1):
        step_flags = flags if number == len(steps) else os.O_PATH | os.O_DIRECTORY
        try:
            below = os.open(step, step_flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = below
    if not steps:
        os.close(here)
        return os.open(f"/proc/self/fd/{root_fd}", flags | os.O_CLOEXEC)
    return here


def as_open_error(path: str, error: OSError) -> OpenError:
    """The kernel's refusal in our words, with what to do about it."""
    text = error.strerror or str(error)
    match error.errno:
        case n if n in (ENOENT, ENOTDIR):
            return NotThereError(path, text)
        case n if n in (EACCES, EPERM):
            return NotPermittedError(
                path, text, "let the agent's user read it, by group or ACL, or give the agent CAP_DAC_READ_SEARCH"
            )
        case n if n in (ELOOP, EXDEV):
            return NotBeneathError(path, text, "collect the file by the path it really has beneath its root")
        case n if n in (EMFILE, ENFILE):
            return NoDescriptorError(path, text, "lower limits.max_open_files or raise the limit on open files")
        case _:
            return OpenError(path, text, number=error.errno or EIO)
