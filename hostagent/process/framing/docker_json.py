r"""The docker-json framing: `{"log":"…\n","stream":"…","time":"…"}` on every line, from Docker's json-file driver.

First stage of a chain for Docker containers. The text of a line is the inside of a JSON string already and is never
unescaped unless a later stage asks for it. In JSON the bytes `","` can't stand inside a string, so a chunk whose lines
all have the one shape becomes a Text with Docker's own syntax as its separators. A line of another shape is carried
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import orjson

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar, Text
from hostagent.process.framing.joining import WRAPPED_BYTES, Line, Record, foreign_lines, frame_joined, read_lines
from hostagent.process.lines import Utf8Breaks, cut

COLUMNS = ("message", "stream", "time")
_OPENING = b'{"log":"'
_STREAMS = tuple(b'\\n","stream":"%s","time":"' % stream for stream in (b"stdout", b"stderr"))
_SYNTAX = (b'\\n","stream":"', b'","time":"', b'"}\n' + _OPENING)
# What surrounds the text (with its quotes), the stream and the time (without).
_SYNTAX_BYTES = len(b'{"log":,"stream":"","time":""}\n')
_MARKS = (b"\x01", b"\x02", b"\n")  # never inside a JSON string


class DockerJsonOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The docker-json framing has no options."""


class _Entry(msgspec.Struct, gc=False):
    log: msgspec.Raw
    stream: str
    time: str


_entry = msgspec.json.Decoder(_Entry)


class DockerJsonFraming:
    """Lines of a json-file log; the parts of a line over 16 KiB are joined per stream."""

    _breaks = Utf8Breaks()

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        stretches = cut(data, self._breaks, final=final, limit_bytes=limit_bytes + WRAPPED_BYTES)
        if len(stretches) == 1 and data[stretches[0].end - 1 : stretches[0].end] == b"\n":
            batch = one_shape(data[: stretches[0].end], constants)
            if batch is not None:
                return Framed([batch], stretches[0].end)
        lines = read_lines(data, stretches, _line)
        return frame_joined(lines, _batch, constants, final=final, limit_bytes=limit_bytes)


def one_shape(lines: bytes, constants: Mapping[str, Scalar]) -> Batch | None:
    r"""Lines that each have a line feed and nothing but the three keys, as a Text; None when some line is different.

    Decoding proves that every line is JSON with the keys. Only if nothing else stands in any line do they add up to the
    length of the chunk; then each key is in a line but once, and the stream and the time follow the text if they follow
    a line feed. A backslash before the escape `\n` would make it the letter n.
    """
    try:
        entries = _entry.decode_lines(lines)
    except msgspec.MsgspecError:
        return None
    rows = len(entries)
    content_bytes = sum([len(entry.log) + len(entry.stream) + len(entry.time) for entry in entries])
    if (
        not entries
        or content_bytes + rows * _SYNTAX_BYTES != len(lines)
        or sum(map(lines.count, _STREAMS)) != rows
        or b"\\" + _SYNTAX[0] in lines
    ):
        return None
    data = b"".join((memoryview(lines)[len(_OPENING) :], _OPENING))
    return Batch(rows=rows, constants=constants, text=Text(COLUMNS, data, _SYNTAX, escaped=True))


def _line(text: bytes, end: int) -> Line:
    try:
        entry = _entry.decode(text)
    except msgspec.MsgspecError:
        return Line(end, None, b"", text, whole=True)
    log = bytes(entry.log)
    if not log.startswith(b'"'):
        return Line(end, None, b"", text, whole=True)
    inside = log[1:-1]
    whole = ends_with_line_feed(inside)
    return Line(end, _quoted(entry.stream), _quoted(entry.time), inside[:-2] if whole else inside, whole)


def ends_with_line_feed(inside: bytes) -> bool:
    r"""Whether the inside of a JSON string ends with the escape `\n`, and not with an escaped backslash and an n."""
    backslashes = len(inside) - 1 - len(inside[:-1].rstrip(b"\\"))
    return inside.endswith(b"n") and backslashes % 2 == 1


def _quoted(value: str) -> bytes:
    return orjson.dumps(value)[1:-1]


def _batch(wrapped: bool, records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    if not wrapped:
        return foreign_lines(records, constants)
    data = b"".join(b"%b\x01%b\x02%b\n" % (text, stream or b"", time) for stream, time, text, _ in records)
    return Batch(rows=len(records), constants=constants, text=Text(COLUMNS, data, _MARKS, escaped=True))
