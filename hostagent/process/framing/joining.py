"""Joins what a container runtime wrote in parts: one record from the parts of one stream.

The slow road of the docker-json and cri framings, taken for a chunk in which some line is not whole. Streams may lie
across each other, and nothing may be kept between two reads: so a stretch of lines with an open record in it is either
taken as a whole or left in the file as a whole. Whether a record is cut depends on the bytes from the stretch's first
line to the cut, and on nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar
from hostagent.process.framing.raw import line_batch, partial_mark
from hostagent.process.lines import EDGE_BYTES, Stretch

# What a runtime writes around one part's text (at most 16 KiB, every byte of it as \u00xx), with room for attributes.
WRAPPED_BYTES = 256 * 1024
# The headers of a record's own parts; a part is 16 KiB, so there are few.
_HEADERS_BYTES = 256


class Line(NamedTuple):
    """One line of the file; `stream` None means it is not of the runtime's form and stands for itself."""

    end: int
    stream: bytes | None
    time: bytes
    text: bytes
    whole: bool


class Record(NamedTuple):
    """One record; `partial` means it was cut before its end. Lines not of the runtime's form have no stream."""

    stream: bytes | None
    time: bytes
    text: bytes
    partial: bool


class Joined(NamedTuple):
    """Records in the order in which they ended, where reading must begin again for each, and what they cover."""

    records: list[Record]
    starts: list[int]
    consumed: int


class _Open:
    """A record of which parts have come, but not its end."""

    __slots__ = ("parts", "size_bytes", "stream", "time")

    def __init__(self, stream: bytes, time: bytes) -> None:
        self.stream = stream
        self.time = time
        self.parts: list[bytes] = []
        self.size_bytes = 0

    def add(self, text: bytes) -> None:
        self.parts.append(text)
        self.size_bytes += len(text)

    def close(self, *, partial: bool) -> Record:
        return Record(self.stream, self.time, b"".join(self.parts), partial)


def window_bytes(limit_bytes: int) -> int:
    """How far an open record may hold back the lines of the other streams."""
    return 2 * limit_bytes + _HEADERS_BYTES


def reach_bytes(limit_bytes: int) -> int:
    """A chunk of that many bytes is never left in the file as a whole."""
    return window_bytes(limit_bytes) + limit_bytes + WRAPPED_BYTES + EDGE_BYTES


def join(lines: Iterable[Line], *, final: bool, limit_bytes: int) -> Joined:
    """Join the parts of each stream; a record is cut when it has `limit_bytes` or lies across too much of the file."""
    records: list[Record] = []
    starts: list[int] = []
    opened: dict[bytes, _Open] = {}
    settled = begin = end = 0
    for end, stream, time, text, whole in lines:
        if stream is None:
            records.append(Record(None, b"", text, not whole))
        else:
            record = opened.setdefault(stream, _Open(stream, time))
            record.add(text)
            if whole or record.size_bytes >= limit_bytes:
                records.append(opened.pop(stream).close(partial=not whole))
        if end - begin >= window_bytes(limit_bytes):
            records += [record.close(partial=True) for record in opened.values()]
            opened.clear()
        starts += [begin] * (len(records) - len(starts))
        if not opened:
            settled, begin = len(records), end
    if not final:
        return Joined(records[:settled], starts[:settled], begin)
    records += [record.close(partial=False) for record in opened.values()]
    starts += [begin] * (len(records) - len(starts))
    return Joined(records, starts, end)


# Makes a batch of records that are all of the runtime's form, or all not.
BatchOf = Callable[[bool, list[Record], Mapping[str, Scalar]], Batch]


def frame_joined(
    lines: Iterable[Line], batch_of: BatchOf, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int
) -> Framed:
    """Join the lines' parts and put what can go into one batch together, in order."""
    joined = join(lines, final=final, limit_bytes=limit_bytes)
    batches = []
    for (wrapped, partial), run in groupby(joined.records, key=lambda one: (one.stream is not None, one.partial)):
        batches.append(batch_of(wrapped, list(run), partial_mark(constants) if partial else constants))
    return Framed(batches, joined.consumed, joined.starts)


def read_lines(data: bytes, stretches: Iterable[Stretch], read: Callable[[bytes, int], Line]) -> Iterator[Line]:
    """The lines of whole stretches, each as `read` understands it, given its end; pieces stand for themselves."""
    for start, end, piece in stretches:
        if piece:
            yield Line(end, None, b"", data[start:end], whole=False)
            continue
        position = start
        for text in data[start:end].removesuffix(b"\n").split(b"\n"):
            position = min(position + len(text) + 1, end)
            yield read(text, position)


def foreign_lines(records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    """Lines that are not of the runtime's form, as they are."""
    return line_batch(b"".join(record.text + b"\n" for record in records), constants)
