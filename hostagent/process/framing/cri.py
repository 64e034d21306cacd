"""The cri framing: what containerd and CRI-O write for a container, `<time> <stream> <P|F> <text>` on every line.

First stage of a chain for Kubernetes containers. A chunk in which every line is whole becomes one Text, with its
headers turned into separators by two replacements; only where a line comes in parts are lines looked at one by one. A
line without the header is carried as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar, Text
from hostagent.process.framing.joining import WRAPPED_BYTES, Line, Record, foreign_lines, frame_joined, read_lines
from hostagent.process.lines import Utf8Breaks, cut
from hostagent.process.text import absent_bytes, cells_of, occurrences

COLUMNS = ("time", "stream", "message")
# RFC 3339 with nanoseconds whose trailing zeros are trimmed: 20 to 35 characters.
TIME = rb"[0-9]{4}-[^ \n]{15,30}"
_HEAD = re.compile(rb"%s std(?:out|err) F " % TIME)
# The engine is faster with a set of one character. Running over a line break would cost it a header, which shows.
_NEXT_HEADS = re.compile(rb"\n[0-9]{4}-[^ ]{15,30} std(?:out|err) F ")
# Further tags may follow the first one behind colons.
_LINE = re.compile(rb"(%s) (stdout|stderr) ([PF])(?::[^ \n]*)? (.*)" % TIME, re.DOTALL)


class CriOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cri framing has no options."""


class CriFraming:
    """Lines with CRI headers; the parts of a long line are joined per stream."""

    _breaks = Utf8Breaks()

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        stretches = cut(data, self._breaks, final=final, limit_bytes=limit_bytes + WRAPPED_BYTES)
        if len(stretches) == 1 and not stretches[0].piece:
            end = stretches[0].end
            whole = data[:end] if data[end - 1 : end] == b"\n" else data[:end] + b"\n"
            batch = whole_lines(whole, constants)
            if batch is not None:
                return Framed([batch], end)
        lines = read_lines(data, stretches, _line)
        return frame_joined(lines, _batch, constants, final=final, limit_bytes=limit_bytes)


def whole_lines(lines: bytes, constants: Mapping[str, Scalar]) -> Batch | None:
    """Whole lines as a Text; None when some line is anything else."""
    if _HEAD.match(lines) is None or (marks := absent_bytes(lines, 3)) is None:
        return None
    rows = occurrences(b"\n", lines)
    if len(_NEXT_HEADS.findall(lines)) != rows - 1:
        return None
    before, after, spare = marks
    # Two searches instead of four: only where the length changes must `replace` count before it copies.
    filled = lines.replace(b" stdout F ", before + b"stdout" + after + spare + spare)
    filled = filled.replace(b" stderr F ", before + b"stderr" + after + spare + spare)
    marked = filled.replace(spare, b"")
    # One header at the start of each line and as many as lines: none within a text.
    if len(lines) - len(marked) != 2 * rows:
        return None
    return Batch(rows=rows, constants=constants, text=Text(COLUMNS, marked, (before, after, b"\n")))


def _line(text: bytes, end: int) -> Line:
    found = _LINE.fullmatch(text)
    if found is None:
        return Line(end, None, b"", text, whole=True)
    return Line(end, found[2], found[1], found[4], found[3] == b"F")


def _batch(wrapped: bool, records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    if not wrapped:
        return foreign_lines(records, constants)
    cells = cells_of((record.time, record.stream or b"", record.text) for record in records)
    return Batch(rows=len(records), constants=constants, names=COLUMNS, cells=cells)
