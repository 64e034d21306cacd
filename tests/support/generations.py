"""The writer's own books: which bytes of which file every line is, for whoever has to say where a missing line lay.

A generation is content that only grows. It may lie in several files at once or one after the other, as a copy or
compressed; each is known by device, inode and birth time, asked of the kernel here and not of the agent.
"""

import ctypes
import hashlib
import os
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

HEAD_BYTES = 1024
_DIGEST_BYTES = 16
_AT_EMPTY_PATH = 0x1000
_BASIC_AND_BIRTH = 0xFFF
# struct statx: inode @32, birth time @80 (seconds, nanoseconds), device @136 (major, minor).
_INODE, _BIRTH, _DEVICE = 32, 80, 136

_libc = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """One file, whatever it is called."""

    device: int
    inode: int
    birth_ns: int


class Bytes(NamedTuple):
    """Bytes [start, end) of a generation, and the numbers [first, last) of the lines they are."""

    generation: int
    start: int
    end: int
    first: int
    last: int


def identity_of(fd: int) -> Identity:
    """What the kernel says a descriptor leads to."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(fd, b"", _AT_EMPTY_PATH, _BASIC_AND_BIRTH, buffer) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    (inode,) = struct.unpack_from("=Q", buffer, _INODE)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BIRTH)
    return Identity(os.makedev(*struct.unpack_from("=II", buffer, _DEVICE)), inode, seconds * 10**9 + nanoseconds)


def identity_at(path: str | os.PathLike[str]) -> Identity:
    """The same of a path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return identity_of(fd)
    finally:
        os.close(fd)


class Generations:
    """All generations of one stream."""

    def __init__(self) -> None:
        self._starts = array("Q")  # where each line begins, by its number
        self._first_seqs = [0]
        self._sizes = [0]
        self._heads = [bytearray()]
        self._files: defaultdict[Identity, set[int]] = defaultdict(set)

    def begin(self) -> None:
        """What is written from now on is another generation."""
        self._first_seqs.append(len(self._starts))
        self._sizes.append(0)
        self._heads.append(bytearray())

    def lies_in(self, identity: Identity, generation: int | None = None) -> None:
        """A generation, the newest by default, has its bytes in this file, perhaps among others."""
        self._files[identity].add(len(self._sizes) - 1 if generation is None else generation)

    def line(self, line: bytes) -> None:
        """A line was begun at the end of the newest generation, with its newline."""
        self._starts.append(self._sizes[-1])
        self._sizes[-1] += len(line)
        head = self._heads[-1]
        if len(head) < HEAD_BYTES:
            head += line[: HEAD_BYTES - len(head)]

    def span(self, generation: int) -> range:
        """The numbers of the lines of a generation."""
        ends = len(self._starts) if generation + 1 == len(self._first_seqs) else self._first_seqs[generation + 1]
        return range(self._first_seqs[generation], ends)

    def bytes_of(self, first: int, last: int) -> list[Bytes]:
        """Where the lines with the numbers [first, last) lie, generation by generation."""
        found = []
        while first < last:
            # The last one that begins there: those before it are empty.
            generation = bisect_right(self._first_seqs, first) - 1
            end = min(last, self.span(generation).stop)
            found.append(Bytes(generation, self._starts[first], self._end_of(generation, end), first, end))
            first = end
        return found

    def lines_in(self, generation: int, start: int, end: int) -> range:
        """The numbers of the lines that lie wholly in these bytes."""
        span = self.span(generation)
        first = bisect_left(self._starts, start, span.start, span.stop)
        if end >= self._sizes[generation]:
            return range(first, span.stop)
        return range(first, bisect_right(self._starts, end, span.start, span.stop) - 1)

    def find(self, identity: Identity, length: int, digest: bytes) -> int | None:
        """The generation in this file whose first `length` bytes have this digest; None if not exactly one can be it.

        The digest is how the agent's database describes a file: BLAKE2b, 16 bytes, of at most the first 1024.
        """
        found = [
            generation
            for generation in self._files.get(identity, ())
            if len(self._heads[generation]) >= length
            and (not length or _digest(self._heads[generation][:length]) == digest)
        ]
        return found[0] if len(found) == 1 else None

    def _end_of(self, generation: int, seq: int) -> int:
        """Where the line before number `seq` ends."""
        return self._starts[seq] if seq < self.span(generation).stop else self._sizes[generation]


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def uncovered(start: int, end: int, ranges: Iterable[tuple[int, int | None]]) -> int:
    """How many of the bytes [start, end) are in none of the ranges; one whose end is None goes on for ever."""
    at, missing = start, 0
    for begin, finish in sorted((begin, end if finish is None else finish) for begin, finish in ranges):
        if begin >= end:
            break
        missing += max(0, begin - at)
        at = max(at, finish)
    return missing + max(0, end - at)
