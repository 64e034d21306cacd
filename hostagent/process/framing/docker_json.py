r"""The docker-json framing: `{"log":"…\n","stream":"…","time":"…"}` on every line, from Docker's json-file driver.

First stage of a chain for Docker containers. The text of a line is the inside of a JSON string already and is never
unescaped unless a later stage asks for it. In JSON the bytes `","` can't stand inside a string, so a chunk whose lines
all have the one shape becomes a Text with Docker's own syntax as its separators. A line of another shape is carried
as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
import orjson

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar, Text
from hostagent.process.framing.cri import with_stream
from hostagent.process.framing.joining import WRAPPED_BYTES, Line, Record, join, runs
from hostagent.process.framing.raw import line_batch, partial_mark
from hostagent.process.lines import Stretch, Utf8Breaks, cut

_OPENING = b'{"log":"'
_BETWEEN_ROWS = b'"}\n' + _OPENING
# What surrounds the text, stream and time of a line in their JSON quotes.
_WRAPPING_BYTES = len(b'{"log":,"stream":"","time":""}\n')
_COLUMNS = (b"\x01", b"\x02", b"\n")  # never inside a JSON string


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
        joined = join(_lines(data, stretches), final=final, limit_bytes=limit_bytes)
        batches = [_batch(kind, list(run), constants) for kind, run in runs(joined.records)]
        return Framed(batches, joined.consumed, joined.starts)


def one_shape(lines: bytes, constants: Mapping[str, Scalar]) -> Batch | None:
    r"""Lines of one stream, each with its line feed, as a Text; None when some line is anything else.

    Decoding proves that every line is JSON with the three keys. They add up to the length of the chunk only if there is
    nothing else in any line, and then the bytes from a text's end to the time's start can be in a line but once. A
    backslash before them would make their `\n` the letter n.
    """
    try:
        entries = _entry.decode_lines(lines)
    except msgspec.MsgspecError:
        return None
    if not entries:
        return None
    content_bytes = sum(len(entry.log) + len(entry.stream) + len(entry.time) for entry in entries)
    stream = entries[0].stream
    before_time = b'\\n","stream":"%s","time":"' % stream.encode()
    if (
        content_bytes + len(entries) * _WRAPPING_BYTES != len(lines)
        or lines.count(before_time) != len(entries)
        or b"\\" + before_time in lines
    ):
        return None
    data = b"".join((memoryview(lines)[len(_OPENING) :], _OPENING))
    text = Text(("message", "time"), data, (before_time, _BETWEEN_ROWS), escaped=True)
    return Batch(rows=len(entries), constants=with_stream(constants, stream.encode()), text=text)


def _lines(data: bytes, stretches: Iterable[Stretch]) -> Iterator[Line]:
    for start, end, piece in stretches:
        if piece:
            yield Line(end, None, b"", data[start:end], whole=False)
            continue
        position = start
        for text in data[start:end].removesuffix(b"\n").split(b"\n"):
            position = min(position + len(text) + 1, end)
            yield _line(text, position)


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


def _batch(kind: tuple[bool, bool], records: list[Record], constants: Mapping[str, Scalar]) -> Batch:
    wrapped, partial = kind
    fixed = partial_mark(constants) if partial else constants
    if not wrapped:
        return line_batch(b"".join(record.text + b"\n" for record in records), fixed)
    data = b"".join(b"%b\x01%b\x02%b\n" % (stream or b"", text, time) for stream, time, text, _ in records)
    return Batch(
        rows=len(records), constants=fixed, text=Text(("stream", "message", "time"), data, _COLUMNS, escaped=True)
    )
