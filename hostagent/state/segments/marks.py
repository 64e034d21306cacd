"""Two small files beside the segments: how far they were drained and fsynced, and which of them should be there.

The first also names the runs of the agent that the directory has lived through, so that whoever keeps books about it
can tell whether they are about this one. Both are overwritten in place, so that they never need space on a full disk,
and carry checksums: a mark that was torn or damaged is as good as none, and then more is delivered again, never less.
The cursor is fsynced only at a start and before a segment is removed: after a power cut it may step back, and blocks
come again under the same id.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CURSOR_NAME = "cursor"
MANIFEST_NAME = "segments"

_SLOT = struct.Struct("<4sIQQQQQQ")
_SLOT_BYTES = 64
_MAGIC = b"HAC1"
_RUNS_AT = 2 * _SLOT_BYTES
RUN_BYTES = 8
_RUNS_KEPT = 100
_MANIFEST_MAX_BYTES = 1024 * 1024
_TOO_LARGE = 1 << 48
"""No spool comes to so many segments, and no segment to so many bytes."""


class Mark(NamedTuple):
    """Everything before the head is done; everything before the synced place was fsynced.

    Before the place that was given up some of it may have been lost; behind that, done means delivered.
    """

    head_segment: int
    head_offset: int
    synced_segment: int
    synced_offset: int
    given_up_segment: int = 0
    given_up_offset: int = 0


class Cursor:
    """The newest mark, in two slots written in turn, so that one of them is whole at any moment."""

    def __init__(self, directory: Path) -> None:
        self._fd = _open(directory / CURSOR_NAME)
        self._turn, mark = _read_cursor(self._fd)
        self.runs = _read_runs(self._fd) if mark is not None else []
        """The newest runs that used this directory, oldest first; none where the mark is lost."""

    @staticmethod
    def read(directory: Path) -> Mark | None:
        """The mark of a directory; None when there is none or both slots are damaged."""
        try:
            fd = _open_to_read(directory / CURSOR_NAME)
        except FileNotFoundError:
            return None
        try:
            return _read_cursor(fd)[1]
        finally:
            os.close(fd)

    def write(self, mark: Mark) -> None:
        """Remember a mark."""
        turn = self._turn + 1
        slot = _SLOT.pack(_MAGIC, mark.given_up_offset, turn, *mark[:5])
        slot += b"\0" * (_SLOT_BYTES - 4 - len(slot))
        slot += struct.pack("<I", zlib.crc32(slot))
        os.pwrite(self._fd, slot, turn % 2 * _SLOT_BYTES)
        self._turn = turn

    def begin_run(self, run: str, before: Sequence[str]) -> None:
        """Write durably which runs the directory has lived through: those before, and this one."""
        runs = [*before, run][-_RUNS_KEPT:]
        names = b"".join(map(bytes.fromhex, runs)).ljust(_RUNS_KEPT * RUN_BYTES, b"\0")
        os.pwrite(self._fd, struct.pack("<I", zlib.crc32(names)) + names, _RUNS_AT)
        self.sync()
        self.runs = runs

    def sync(self) -> None:
        """Make the mark that was written last durable."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class Manifest:
    """The segments that should be there, number → size (0: still growing). What is missing somebody else took."""

    def __init__(self, directory: Path) -> None:
        self._written = self.read(directory)
        self._fd = _open(directory / MANIFEST_NAME)

    @staticmethod
    def read(directory: Path) -> dict[int, int]:
        """The segments listed; none when the list is damaged."""
        try:
            fd = _open_to_read(directory / MANIFEST_NAME)
        except FileNotFoundError:
            return {}
        try:
            line, _, _ = os.pread(fd, _MANIFEST_MAX_BYTES, 0).partition(b"\n")
        finally:
            os.close(fd)
        checksum, _, entries = line.partition(b" ")
        try:
            if int(checksum, 16) != zlib.crc32(entries):
                return {}
            pairs = [entry.split(b":") for entry in entries.split()]
            listed = {int(number): int(size) for number, size in pairs}
        except ValueError:
            return {}
        return listed if max([*listed, *listed.values()], default=0) < _TOO_LARGE else {}

    def write(self, sizes: dict[int, int]) -> None:
        """Make a list durable, if it is another one."""
        if sizes == self._written:
            return
        text = b" ".join(b"%d:%d" % entry for entry in sizes.items())
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))
        os.fdatasync(self._fd)
        self._written = dict(sizes)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


def _open_to_read(path: Path) -> int:
    """A FIFO in its place must not keep the agent from starting: it can't be read at an offset, and that is told."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def _read_runs(fd: int) -> list[str]:
    """The runs that are named in a mark's file; none when they were damaged, or an older agent made it."""
    found = os.pread(fd, 4 + _RUNS_KEPT * RUN_BYTES, _RUNS_AT)
    names = found[4:]
    if len(names) != _RUNS_KEPT * RUN_BYTES or int.from_bytes(found[:4], "little") != zlib.crc32(names):
        return []
    runs = (names[at : at + RUN_BYTES] for at in range(0, len(names), RUN_BYTES))
    return [run.hex() for run in runs if any(run)]


def _read_cursor(fd: int) -> tuple[int, Mark | None]:
    """The number of the newest sound slot, and its mark."""
    newest: tuple[int, Mark | None] = (0, None)
    for number in (0, 1):
        slot = os.pread(fd, _SLOT_BYTES, number * _SLOT_BYTES)
        if len(slot) != _SLOT_BYTES or int.from_bytes(slot[-4:], "little") != zlib.crc32(slot[:-4]):
            continue
        magic, given_up_offset, turn, *places = _SLOT.unpack_from(slot)
        if magic == _MAGIC and turn > newest[0] and max(places) < _TOO_LARGE:
            newest = (turn, Mark._make([*places, given_up_offset]))
    return newest
