"""The docker-local framing: the binary log of Docker's `local` driver, and of the cache it keeps for other drivers.

First stage of a chain for such containers. A record is a protobuf message between two copies of its length, four bytes
each, so the end of one is known only from its beginning. Bytes that are no record, where a disk or a crash damaged the
file, are carried as they are up to the next place where both copies agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar
from hostagent.process.framing.joining import WRAPPED_BYTES, Line, Record, frame_joined
from hostagent.process.text import cells_of

COLUMNS = ("time", "stream", "message")
LENGTH_BYTES = 4
# Docker cuts lines at 16 KiB; what is longer than this was not written by it.
MOST_BYTES = WRAPPED_BYTES - 2 * LENGTH_BYTES
# Every record begins with its stream: field 1, a text of six bytes.
HEADS = (b"\n\x06stdout\x10", b"\n\x06stderr\x10")
_STREAM = slice(2, 8)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TIME, _LINE, _PARTIAL, _METADATA = 2, 3, 4, 5
_IS_LAST = 1
# Both lengths, stream, time and an empty line.
_LEAST_BYTES = 2 * LENGTH_BYTES + 20
_LINE_KEY = _LINE << 3 | _BYTES
# Masks that move groups of seven bits together, two by two: bytes of a number, lowest first.
_EVEN_GROUPS, _ODD_GROUPS = 0x7F_00_7F_00_7F_00_7F_00_7F, 0x7F_00_7F_00_7F_00_7F_00
_EVEN_PAIRS, _ODD_PAIRS = 0x3FFF_0000_3FFF | 0x7F << 64, 0x3FFF_0000_3FFF_0000
_EVEN_QUADS, _ODD_QUADS = 0xFFFFFFF | 0x7F << 64, 0xFFFFFFF << 32
_FIRST_EIGHT, _NINTH = (1 << 56) - 1, 0x7F << 64


class DockerLocalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The docker-local framing has no options."""


class DockerLocalFraming:
    """Length-prefixed records; the parts of a line over 16 KiB are joined per stream."""

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        cells, starts, end = plain_cells(data, limit_bytes)
        if cells and (end == len(data) or (not final and _may_grow(data, end))):
            return Framed([Batch(rows=len(starts), constants=constants, names=COLUMNS, cells=cells)], end, starts)
        lines = _lines(data, final=final, limit_bytes=limit_bytes)
        return frame_joined(lines, _batch, constants, final=final, limit_bytes=limit_bytes)


class FrameBreaks:
    """What takes the place of line breaks: nothing but a whole record ends one."""

    def last_line_end(self, data: bytes, start: int, stop: int) -> int:
        position = start
        while end := _frame_end(data, position, stop):
            position = end
        return position if position > start else 0

    def whole_characters(self, data: bytes) -> int:
        return len(data)


class _Entry(NamedTuple):
    time_ns: int
    line: bytes
    whole: bool


def plain_cells(data: bytes, limit_bytes: int) -> tuple[list[bytes], list[int], int]:
    """A table of the records that hold a stream, a time and a whole line, as nearly all do; where each begins; the end.

    Ends before the first record of any other kind. Nanoseconds of our time have nine groups of seven bits, the lengths
    of Docker's lines one to three.
    """
    cells: list[bytes] = []
    starts: list[int] = []
    position, stop = 0, len(data)
    while position + _LEAST_BYTES <= stop:
        length = data[position : position + LENGTH_BYTES]
        end = position + int.from_bytes(length, "big") + 2 * LENGTH_BYTES
        size, begin = data[position + 23], position + 24
        if size > 127:
            size, begin = size & 127 | data[begin] << 7, begin + 1
            if size > 16383:
                size, begin = size & 16383 | data[begin] << 14, begin + 1
        if (
            begin + size + LENGTH_BYTES != end
            or end > position + MOST_BYTES + 2 * LENGTH_BYTES
            or data[end - LENGTH_BYTES : end] != length
            or data[position + 4 : position + 13] not in HEADS
            or data[position + 22] != _LINE_KEY
            or data[position + 21] > 127
            or data[position + 20] < 128
            or size >= limit_bytes
        ):
            break
        groups = int.from_bytes(data[position + 13 : position + 22], "little")
        cells += (_stamp(_joined_groups(groups)), data[position + 6 : position + 12], data[begin : begin + size])
        starts.append(position)
        position = end
    return cells, starts, position


def _joined_groups(groups: int) -> int:
    """The number in nine bytes that each hold seven of its bits, the lowest first."""
    pairs = groups & _EVEN_GROUPS | (groups & _ODD_GROUPS) >> 1
    quads = pairs & _EVEN_PAIRS | (pairs & _ODD_PAIRS) >> 2
    eights = quads & _EVEN_QUADS | (quads & _ODD_QUADS) >> 4
    return eights & _FIRST_EIGHT | (eights & _NINTH) >> 8


def _lines(data: bytes, *, final: bool, limit_bytes: int) -> Iterator[Line]:
    """The records and what lies between them, up to the first one that has not been written whole."""
    position = 0
    while position < len(data):
        end = _frame_end(data, position, len(data))
        if end:
            yield _line(data, position, end)
        else:
            if not final and _may_grow(data, position):
                return
            end = _next_frame(data, position + 1, position + limit_bytes, final=final)
            if not end:
                return
            yield Line(end, None, b"", data[position:end], whole=True)
        position = end


def _frame_end(data: bytes, position: int, stop: int) -> int:
    """Where the record ends that begins here; 0 if none does, or not all of it is there."""
    length = data[position : position + LENGTH_BYTES]
    size = int.from_bytes(length, "big")
    end = position + size + 2 * LENGTH_BYTES
    if end > stop or size > MOST_BYTES or len(length) < LENGTH_BYTES or data[end - LENGTH_BYTES : end] != length:
        return 0
    return end if data.startswith(HEADS, position + LENGTH_BYTES) else 0


def _may_grow(data: bytes, position: int) -> bool:
    """Whether these bytes can become a record when more of it is written."""
    length = data[position : position + LENGTH_BYTES]
    size = int.from_bytes(length, "big")
    if len(length) < LENGTH_BYTES:
        return True
    head = data[position + LENGTH_BYTES : position + LENGTH_BYTES + len(HEADS[0])]
    if size > MOST_BYTES or not any(expected.startswith(head) for expected in HEADS):
        return False
    return position + size + 2 * LENGTH_BYTES > len(data)


def _next_frame(data: bytes, position: int, limit: int, *, final: bool) -> int:
    """Where the damage ends: at the next record, at the limit, or with the file; 0 while that can't be told."""
    while position < min(limit, len(data)):
        found = min((at for head in HEADS if (at := data.find(head, position + LENGTH_BYTES)) >= 0), default=-1)
        at = found - LENGTH_BYTES
        if found < 0 or at >= limit:
            break
        if _frame_end(data, at, len(data)):
            return at
        if not final and _may_grow(data, at):
            return 0
        position = at + 1
    if len(data) >= limit + LENGTH_BYTES + len(HEADS[0]):
        return limit
    return len(data) if final else 0


def _line(data: bytes, start: int, end: int) -> Line:
    message = data[start + LENGTH_BYTES : end - LENGTH_BYTES]
    entry = _decoded(message)
    if entry is None:
        return Line(end, None, b"", data[start:end], whole=True)
    return Line(end, message[_STREAM], _stamp(entry.time_ns), entry.line, entry.whole)


def _decoded(message: bytes) -> _Entry | None:
    """The fields of a record; None if it is no valid message. Unknown fields are passed over."""
    time_ns, line, partial, last = 0, b"", False, False
    try:
        for number, value in _fields(message):
            if number == _TIME and isinstance(value, int):
                time_ns = value
            elif number == _LINE and isinstance(value, bytes):
                line = value
            elif number == _PARTIAL:
                partial = bool(value)
            elif number == _METADATA and isinstance(value, bytes):
                last = any(inner == _IS_LAST and bool(known) for inner, known in _fields(value))
    except (IndexError, ValueError):
        return None
    return _Entry(time_ns, line, last or not partial)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, by number; ValueError or IndexError when it is none."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"protobuf has no wire type {kind}")
        if position + size > len(message):
            raise ValueError("a field ends behind its message")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _stamp(time_ns: int) -> bytes:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return b"%b.%09dZ" % (_second(seconds), nanoseconds)


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
    except (ValueError, OverflowError, OSError):
        return b"1970-01-01T00:00:00"


def _batch(wrapped: bool, records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    if not wrapped:
        cells = [record.text for record in records]
        return Batch(rows=len(records), constants=constants, names=("message",), cells=cells)
    cells = cells_of((record.time, record.stream or b"", record.text) for record in records)
    return Batch(rows=len(records), constants=constants, names=COLUMNS, cells=cells)
