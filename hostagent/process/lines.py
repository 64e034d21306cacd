"""Where lines end in a chunk of a file, and where a line that is too long must be cut.

Used by every framing before it looks at anything else. It answers with offsets only and decides by the bytes alone:
the same bytes are cut at the same places whenever they are read, however much was read with them.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple, Protocol

# A character is at most four bytes in any encoding read here, so backing off to a character's edge costs at most three.
EDGE_BYTES = 3


class Stretch(NamedTuple):
    """Bytes [start, end) of a chunk: whole lines, or (`piece`) a part of one line that is longer than the limit."""

    start: int
    end: int
    piece: bool


class LineBreaks(Protocol):
    """What a charset knows of line breaks and characters."""

    def last_line_end(self, data: bytes, start: int, stop: int) -> int:
        """Offset behind the last line break that lies wholly in [start, stop); 0 when there is none."""

    def whole_characters(self, data: bytes) -> int:
        """How many of these bytes are left when a character cut off at their end is taken away."""


class Utf8Breaks:
    """Line breaks of UTF-8, and of every other encoding whose bytes below 128 are ASCII."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)

    def last_line_end(self, data: bytes, start: int, stop: int) -> int:
        return data.rfind(b"\n", start, stop) + 1

    def whole_characters(self, data: bytes) -> int:
        return len(data) - unfinished_bytes(self._decoder("replace"), data)


def unfinished_bytes(decoder: codecs.IncrementalDecoder, data: bytes) -> int:
    """How many bytes at the end of `data` wait for the rest of their character."""
    decoder.decode(data)
    return len(decoder.getstate()[0])


def cut(data: bytes, breaks: LineBreaks, *, final: bool, limit_bytes: int) -> list[Stretch]:
    """Cut a chunk that starts at a line into stretches; what lies behind the last one has not ended.

    A line longer than the limit becomes pieces of the limit's length (or up to three bytes less, at a character's
    edge), and its remainder goes on as an ordinary line. With `final` the end of the chunk ends the last line; if that
    is as long as a piece, it is one: it was cut there when the chunk was longer.
    """
    stretches: list[Stretch] = []
    start = position = 0
    while position < len(data):
        end = breaks.last_line_end(data, position, position + limit_bytes + 1)
        if end:
            position = end
            continue
        rest_bytes = len(data) - position
        if rest_bytes <= limit_bytes and not (final and rest_bytes >= limit_bytes - EDGE_BYTES):
            break
        if position > start:
            stretches.append(Stretch(start, position, piece=False))
        size = rest_bytes
        if rest_bytes >= limit_bytes:
            size = breaks.whole_characters(data[position : position + limit_bytes]) or limit_bytes
        stretches.append(Stretch(position, position + size, piece=True))
        start = position = position + size
    end = len(data) if final else position
    if end > start:
        stretches.append(Stretch(start, end, piece=False))
    return stretches
