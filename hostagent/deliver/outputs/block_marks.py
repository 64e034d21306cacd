"""Which blocks a file already holds and where the last one ends: the memory that keeps a file exact through kill -9.

Owns one small append-only file per output. It is written after the block's bytes and is not synced itself: while the
machine stays up the kernel keeps what a killed process has written, so within one boot it is exact. After a power cut
it may be behind, and then it must not be believed about where the file ends.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

_TITLE = "hostagent-blocks-1"
_KEPT = 1000
_LONGEST_BYTES = 256 * 1024
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

Identity = tuple[int, int]


class End(NamedTuple):
    """Where our last block ends in a file; `exact` when nothing can have been written after it but a torn block."""

    identity: Identity
    offset: int
    exact: bool


class BlockMarks:
    """Used by one sender's thread; raises OSError like any file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot = _boot_id()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._fd: int | None = None
        self._written_bytes = 0
        self._identity: Identity = (0, 0)
        self._offset = 0
        self.end: End | None = self._load()

    def __contains__(self, block_id: str) -> bool:
        return block_id in self._ids

    def begin(self, identity: Identity, offset: int) -> None:
        """From here on blocks go into this file, which ends at `offset` now."""
        self._identity, self._offset = identity, offset
        self._rewrite()

    def add(self, block_id: str, offset: int) -> None:
        """A block was written whole; the file now ends at `offset`. When it raises, the block counts as not written."""
        before = self._offset
        self._ids[block_id] = None
        self._offset = offset
        while len(self._ids) > _KEPT:
            self._ids.popitem(last=False)
        line = f"{block_id} {offset}\n".encode()
        try:
            if self._fd is None or self._written_bytes + len(line) > _LONGEST_BYTES:
                self._rewrite()
            elif os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            else:
                self._written_bytes += len(line)
        except OSError:
            del self._ids[block_id]
            self._offset = before
            self._discard()  # it may end in half a line: the next mark is written into a new file
            raise

    def close(self) -> None:
        """Make durable what was noted, so that a planned reboot finds it."""
        if self._fd is not None:
            try:
                os.fdatasync(self._fd)
            finally:
                os.close(self._fd)
                self._fd = None

    def _load(self) -> End | None:
        try:
            content = self._path.read_bytes()[: 4 * _LONGEST_BYTES]
        except FileNotFoundError:
            return None
        whole, _, _torn = content.rpartition(b"\n")
        lines = whole.decode("ascii", "replace").split("\n")
        try:
            title, boot, device, inode = lines[0].split(" ")
            pairs = [line.split(" ") for line in lines[1:]]
            offsets = [int(offset) for _, offset in pairs]
            self._ids = OrderedDict.fromkeys(name for name, _ in pairs if name != "-")
            identity = (int(device), int(inode))
        except ValueError:
            return None
        if title != _TITLE or not offsets:
            return None
        return End(identity, offsets[-1], exact=boot == self._boot != "")

    def _rewrite(self) -> None:
        self._discard()
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".new")
        lines = [f"{_TITLE} {self._boot} {self._identity[0]} {self._identity[1]}"]
        lines += [f"{name} {self._offset}" for name in self._ids]
        lines.append(f"- {self._offset}")
        content = "\n".join(lines).encode() + b"\n"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(fresh))
            # A rename that reaches the disk before its content would leave an empty file after a power cut.
            os.fdatasync(fd)
            os.rename(fresh, self._path)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._written_bytes = len(content)

    def _discard(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _boot_id() -> str:
    try:
        return Path(_BOOT_ID).read_text(encoding="ascii").strip()
    except OSError:
        return ""
