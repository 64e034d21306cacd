"""Which file is this, really? The first question asked of every descriptor before a byte of it counts.

Owns what the kernel says about an open file (statx), the fingerprint of its beginning, the anchor before a position,
and the question whether anybody still writes to it. It opens nothing and remembers nothing: the checkpoint does.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import stat
import struct
import sys
from errno import EAGAIN
from typing import NamedTuple

from hostagent.digest import blake2b
from hostagent.hookspecs import Content
from hostagent.model import FileId, Fingerprint

ANCHOR_BYTES = 256
FINGERPRINT_BYTES = 1024
DIGEST_BYTES = 16
NO_FINGERPRINT = Fingerprint(0, b"")

_AT_EMPTY_PATH = 0x1000
_STATX_BASIC_STATS = 0x7FF
_STATX_BTIME = 0x800
# struct statx of linux/stat.h: mask @0, nlink @16, mode @28, inode @32, size @40, btime @80, mtime @112, device @136.
_STATX = struct.Struct("=I12xI8xH2xQQ32xqI20xqI12xII")
_STATX_BUFFER_BYTES = 256

_libc = ctypes.CDLL(None, use_errno=True)
# A C library without the wrapper (musl before 1.2.5) reads as a file system that keeps no birth times.
_statx = getattr(_libc, "statx", None)


class OpenFile(NamedTuple):
    """What the kernel says about an open descriptor, at one moment."""

    id: FileId
    size: int
    nlink: int
    mode: int
    mtime_ns: int


def identify(fd: int) -> OpenFile:
    """Ask for a descriptor's identity and size; OSError if it is none."""
    if _statx is None:
        return _identify_without_birth(fd)
    buffer = ctypes.create_string_buffer(_STATX_BUFFER_BYTES)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BASIC_STATS | _STATX_BTIME, buffer) != 0:
        # Container sandboxes older than the call refuse it; a bad descriptor fails again below with its own error.
        return _identify_without_birth(fd)
    mask, nlink, mode, inode, size, birth_s, birth_ns, mtime_s, mtime_ns, major, minor = _STATX.unpack_from(buffer)
    born_ns = birth_s * 1_000_000_000 + birth_ns if mask & _STATX_BTIME else 0
    identity = FileId(os.makedev(major, minor), inode, born_ns)
    return OpenFile(identity, size, nlink, mode, mtime_s * 1_000_000_000 + mtime_ns)


def _identify_without_birth(fd: int) -> OpenFile:
    status = os.fstat(fd)
    identity = FileId(status.st_dev, status.st_ino, 0)
    return OpenFile(identity, status.st_size, status.st_nlink, status.st_mode, status.st_mtime_ns)


def same_file(one: FileId, other: FileId) -> bool:
    """Whether two identities can be the same file, however far apart in time they were taken.

    The device number is left out: it changes when a file system is mounted again. A birth time counts where both
    sides have one. It takes the fingerprint to be sure.
    """
    if one.inode != other.inode:
        return False
    return one.birth_ns == other.birth_ns or not one.birth_ns or not other.birth_ns


def fingerprint(content: Content, known: Fingerprint | None = None) -> Fingerprint | None:
    """Hash the file's beginning, as much of it as there is; None if it does not begin as `known` says.

    A known fingerprint that is shorter than the file's beginning by now comes back grown.
    """
    head = content.read(0, FINGERPRINT_BYTES)
    if known is not None and not begins_as(head, known):
        return None
    return fingerprint_of(head)


def fingerprint_of(head: bytes) -> Fingerprint:
    """The fingerprint of a file that begins with these bytes."""
    head = head[:FINGERPRINT_BYTES]
    return Fingerprint(len(head), _digest(head)) if head else NO_FINGERPRINT


def first_fingerprint(content: Content) -> Fingerprint:
    """How a new file begins; that of nothing where it can't be read: it grows with the first read that works."""
    try:
        return fingerprint(content) or NO_FINGERPRINT
    except OSError:
        return NO_FINGERPRINT


def begins_as(head: bytes, known: Fingerprint) -> bool:
    """Whether these first bytes are those of a fingerprint; a fingerprint of nothing fits everything."""
    return not known.length or (len(head) >= known.length and _digest(head[: known.length]) == known.digest)


def anchor_of(before: bytes) -> bytes:
    """Hash the last `ANCHOR_BYTES` of the bytes that lie before a position."""
    return _digest(before[-ANCHOR_BYTES:])


def anchor_holds(content: Content, offset: int, anchor: bytes) -> bool:
    """Whether the content still has the anchor's bytes before `offset`. Nothing lies before 0, so 0 always holds."""
    start = max(0, offset - ANCHOR_BYTES)
    before = content.read(start, offset - start) if offset else b""
    return len(before) == offset - start and (not offset or anchor_of(before) == anchor)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def ignore_lease_signal() -> None:
    """Ignore SIGIO, whose default is to end the process. Main thread only, before the first `has_writer`.

    The kernel sends it to the holder of a lease when somebody opens the file for writing in the few microseconds
    `has_writer` holds one.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def has_writer(fd: int) -> bool | None:
    """Whether any process has the file open for writing; None where that can't be told.

    Only the kernel knows: a read lease is granted exactly when there is no writer, and given back at once. It takes
    a descriptor that is open for reading only, and the file's owner or CAP_LEASE; network file systems refuse.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return None
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == EAGAIN else None
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:  # somebody opened it meanwhile, and the kernel has taken the lease back
        return True
    return False


def filesystem_of(fd: int) -> int:
    """The magic number of the file system a descriptor lies on (statfs(2) lists them)."""
    buffer = ctypes.create_string_buffer(_STATX_BUFFER_BYTES)
    if _libc.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # The first field, as wide as a long but never above 32 bits; little-endian, or s390x where it is 32 bits wide.
    return int.from_bytes(buffer.raw[:4], sys.byteorder)


def kind_of(mode: int) -> str:
    """Name a file's type in words an operator knows, for messages about files that can't be read as logs."""
    for test, word in _KINDS:
        if test(mode):
            return word
    return "unknown"


_KINDS = (
    (stat.S_ISREG, "regular file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)
