"""The cri framing: what containerd and CRI-O write for a container, `<time> <stream> <P|F> <text>` on every line.

First stage of a chain for Kubernetes containers. A chunk in which every line is whole and of one stream becomes one
Text without being touched; whole lines of both streams become a table in one pass; only where a line comes in parts are
lines looked at one by one. A line without the header is carried as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar, Text
from hostagent.process.framing.joining import WRAPPED_BYTES, Line, Record, join, runs
from hostagent.process.framing.raw import line_batch, partial_mark
from hostagent.process.lines import Stretch, Utf8Breaks, cut

# RFC 3339 with nanoseconds whose trailing zeros are trimmed: 20 to 35 characters.
TIME = rb"[0-9]{4}-[0-9T:.Z+-]{15,30}"
_HEAD = re.compile(rb"%s (stdout|stderr) F " % TIME)
_HEADS = {stream: re.compile(rb"\n%s %s F " % (TIME, stream)) for stream in (b"stdout", b"stderr")}
_WHOLE_LINES = re.compile(rb"^(%s) (stdout|stderr) F (.*)$" % TIME, re.MULTILINE)
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
            lines = data[:end] if data[end - 1 : end] == b"\n" else data[:end] + b"\n"
            batch = one_stream(lines, constants) or both_streams(lines, constants)
            if batch is not None:
                return Framed([batch], end)
        joined = join(_lines(data, stretches), final=final, limit_bytes=limit_bytes)
        batches = [_batch(kind, list(run), constants) for kind, run in runs(joined.records)]
        return Framed(batches, joined.consumed, joined.starts)


def one_stream(lines: bytes, constants: Mapping[str, Scalar]) -> Batch | None:
    """Whole lines of one stream as a Text; None when some line is anything else."""
    head = _HEAD.match(lines)
    if head is None:
        return None
    stream, rows = head[1], lines.count(b"\n")
    sep = b" %s F " % stream
    # One header at the start of each line, and no more of them than lines: so none in the text of a line.
    if len(_HEADS[stream].findall(lines)) != rows - 1 or lines.count(sep) != rows:
        return None
    text = Text(("time", "message"), lines, (sep, b"\n"))
    return Batch(rows=rows, constants=with_stream(constants, stream), text=text)


def both_streams(lines: bytes, constants: Mapping[str, Scalar]) -> Batch | None:
    """Whole lines as a table; None when some line is anything else."""
    found = _WHOLE_LINES.findall(lines)
    if len(found) != lines.count(b"\n"):
        return None
    values: list[tuple[bytes, ...]] = [(stream, time, text) for time, stream, text in found]
    return Batch(rows=len(values), constants=constants, names=("stream", "time", "message"), values=values)


def with_stream(constants: Mapping[str, Scalar], stream: bytes) -> dict[str, Scalar]:
    """Constants of records that all come from one stream; written where the column `stream` would be."""
    return {name: value for name, value in constants.items() if name != "stream"} | {"stream": stream.decode()}


def _lines(data: bytes, stretches: Iterable[Stretch]) -> Iterator[Line]:
    for start, end, piece in stretches:
        if piece:
            yield Line(end, None, b"", data[start:end], whole=False)
            continue
        position = start
        for text in data[start:end].removesuffix(b"\n").split(b"\n"):
            position = min(position + len(text) + 1, end)
            found = _LINE.fullmatch(text)
            if found:
                yield Line(position, found[2], found[1], found[4], found[3] == b"F")
            else:
                yield Line(position, None, b"", text, whole=True)


def _batch(kind: tuple[bool, bool], records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    wrapped, partial = kind
    fixed = partial_mark(constants) if partial else constants
    if not wrapped:
        return line_batch(b"".join(record.text + b"\n" for record in records), fixed)
    values: list[tuple[bytes, ...]] = [(record.stream or b"", record.time, record.text) for record in records]
    return Batch(rows=len(values), constants=fixed, names=("stream", "time", "message"), values=values)
