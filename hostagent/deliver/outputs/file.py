"""The output that appends blocks to a file and rotates it by size; every record is there once, also after kill -9.

Owns the file it writes, its rotation, and the healing of a torn end. A block is acked when all its bytes are in the
file and, by default, on the disk. It must not touch a file another process holds the lock of.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import zlib
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import zstandard

from hostagent.deliver.outputs.block_marks import BlockMarks, End
from hostagent.errors import TemporaryError
from hostagent.hookspecs import Wiring
from hostagent.model import Delivery, Verdict
from hostagent.state.durable import sync_directory

ACKED = Verdict()
_MIB = 1024 * 1024


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to write. `keep` counts rotated files, `path.1` (newest) to `path.<keep>`; `fsync` is before every ack."""

    default_compression: ClassVar[str] = "none"

    path: str
    max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 100 * _MIB
    keep: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 5
    fsync: bool = True

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.endswith("/") or "\0" in self.path:
            raise ValueError("path: must be the absolute path of a file")


class FileOutput:
    """Used by one sender's thread."""

    def __init__(self, options: FileOptions, marks_path: Path) -> None:
        self._path = options.path
        self._max_bytes = options.max_bytes
        self._keep = options.keep
        self._fsync = options.fsync
        self._marks_path = marks_path
        self._marks: BlockMarks | None = None
        self._fd: int | None = None
        self._size = 0
        self._torn = False
        self._compression = "none"

    def send(self, delivery: Delivery) -> Verdict:
        self._compression = delivery.compression
        try:
            if self._marks is None:
                self._marks = BlockMarks(self._marks_path)
            if delivery.id in self._marks:
                return ACKED
            fd = self._ready(len(delivery.body), self._marks)
            self._torn = True
            size = self._append(fd, delivery.body)
            self._marks.add(delivery.id, size)
            self._size, self._torn = size, False
        except OSError as error:
            with contextlib.suppress(OSError):  # the next try does it else
                self._cut_off_torn()
            raise TemporaryError(_explain(self._path, error)) from error
        return ACKED

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._marks is not None:
            self._marks.close()

    def _ready(self, need_bytes: int, marks: BlockMarks) -> int:
        """The descriptor to append to: opened, healed, rotated as need be, and at the size we think."""
        self._cut_off_torn()
        if self._fd is not None and self._replaced(self._fd):
            self._drop()
        fd = self._fd if self._fd is not None else self._open(marks)
        if (size := os.fstat(fd).st_size) != self._size:
            self._size = size  # somebody has truncated the file; appending goes on at its end
            marks.begin(_identity(fd), size)
        if self._size and self._size + need_bytes > self._max_bytes:
            self._rotate(fd)
            fd = self._open(marks)
        return fd

    def _cut_off_torn(self) -> None:
        """A block that was not written whole comes again: others may read the file, or move it away."""
        if self._torn and self._fd is not None and os.fstat(self._fd).st_size > self._size:
            os.ftruncate(self._fd, self._size)
        self._torn = False

    def _append(self, fd: int, body: bytes) -> int:
        offset = self._size
        rest = memoryview(body)
        while rest:
            written = os.pwrite(fd, rest, offset)
            offset += written
            rest = rest[written:]
        if self._fsync:
            os.fdatasync(fd)
        return offset

    def _open(self, marks: BlockMarks) -> int:
        folder = os.path.dirname(self._path)
        os.makedirs(folder, mode=0o750, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise TemporaryError(f"{self._path} is not a regular file: set path to one")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(fd).st_size
            whole = _whole_bytes(fd, size, marks.end, self._compression)
            if whole < size:
                os.ftruncate(fd, whole)
            elif self._compression == "none" and size and os.pread(fd, 1, size - 1) != b"\n":
                whole += os.pwrite(fd, b"\n", size)  # not ours, and not to be continued by our first record
            if self._fsync:
                sync_directory(folder)
            marks.begin(_identity(fd), whole)
            marks.end = None
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._size, self._torn = fd, whole, False
        return fd

    def _rotate(self, fd: int) -> None:
        """Number the old files up by one, the oldest beyond `keep` goes; interrupted anywhere, no other is lost."""
        if self._fsync:
            os.fdatasync(fd)
        for number in range(self._keep, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.lexists(newer):
                os.rename(newer, older)
        if self._keep == 0:
            os.unlink(self._path)
        self._drop()

    def _replaced(self, fd: int) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != _identity(fd)

    def _drop(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size, self._torn = None, 0, False


def _whole_bytes(fd: int, size: int, end: End | None, compression: str) -> int:
    """How much of a file we find at start is whole; a file that we did not write is left as it is.

    Within one boot all of our blocks are marked, so what comes after the last mark is a block that was torn. After a
    power cut marks may be missing for blocks that were acked: then only what is no whole record, or frame, is cut off.
    """
    if end is None or end.identity != _identity(fd) or end.offset > size:
        return size
    if end.exact:
        return end.offset
    if compression == "none":
        return _last_line_end(fd, end.offset, size)
    return end.offset + _whole_frames(os.pread(fd, size - end.offset, end.offset), compression)


def _last_line_end(fd: int, start: int, size: int) -> int:
    at = size
    while at > start:
        begin = max(start, at - 64 * 1024)
        found = os.pread(fd, at - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        at = begin
    return start


def _whole_frames(data: bytes, compression: str) -> int:
    """How many bytes of `data` are whole frames (zstd) or members (gzip)."""
    rest = data
    while rest:
        stream = zstandard.ZstdDecompressor().decompressobj() if compression == "zstd" else zlib.decompressobj(wbits=31)
        try:
            stream.decompress(rest)
        except (zstandard.ZstdError, zlib.error):
            break
        if not stream.eof:
            break
        rest = stream.unused_data
    return len(data) - len(rest)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _explain(path: str, error: OSError) -> str:
    if error.errno == errno.EWOULDBLOCK:
        return f"{path} is being written by another process: give each output a file of its own"
    hint = {
        errno.ENOSPC: "free some space, or lower max_bytes and keep",
        errno.EDQUOT: "raise the quota, or lower max_bytes and keep",
        errno.EACCES: "let the agent's user write there",
        errno.EROFS: "mount the filesystem writable",
        errno.ENXIO: "set path to a regular file",
        errno.EISDIR: "set path to a file, this is a directory",
    }.get(error.errno or 0, "check the path and the disk beneath it")
    return f"{error.filename or path} can't be written ({error.strerror}): {hint}"


def build_file(options: FileOptions, wiring: Wiring) -> FileOutput:
    """Build the output from its options."""
    return FileOutput(options, wiring.data_dir / "outputs" / f"{wiring.name}.blocks")
