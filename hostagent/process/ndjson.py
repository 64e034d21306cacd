"""The `ndjson` encoder: one JSON object per record and line.

Last stage before a block. Constants come first and are written once, into what stands between two rows; then the
columns. A Text goes to the wire by replacing its separators, cells by one join over all rows, and only materialised
records are encoded one by one. All three ways give the same bytes for the same record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import orjson

from hostagent.model import Batch, Encoded, Scalar, Text
from hostagent.process.escape import escape_all, fill, rewrite
from hostagent.process.text import cells_of, raw_columns

CLOSING = b'"}\n'


class NdjsonOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ndjson encoder has no options."""


class NdjsonEncoder:
    """Encodes batches as newline-delimited JSON. A column or parsed field takes the place of a constant of its name."""

    content_type = "application/x-ndjson"
    timed = False

    def encode(self, batch: Batch, observed_ns: int) -> Encoded:
        if batch.text is not None:
            return encode_text(batch.text, batch.constants)
        if batch.cells is not None:
            return encode_cells(batch.names, batch.cells, batch.constants)
        return encode_records(batch.records or [], batch.constants)

    def join(self, payloads: list[bytes]) -> bytes:
        return b"".join(payloads)

    def split(self, body: bytes) -> list[bytes]:
        return [line + b"\n" for line in body.split(b"\n") if line]


def encode_text(text: Text, constants: Mapping[str, Scalar]) -> Encoded:
    """Joined text: escape the buffer as a whole, then write what stands between two values over the separators."""
    if not text.data:
        return Encoded(b"", 0)
    opening, *between = openings(text.names, constants)
    fillings = (*between, CLOSING + opening)
    filled = (fill if text.escaped else rewrite)(text.data, text.seps, fillings)
    if filled is not None:
        body, rows = filled
        return Encoded(b"".join((opening, memoryview(body)[: -len(opening)])), rows)
    split = raw_columns(text)
    escaped = split if text.escaped else [escape_all(values) for values in split]
    return _interleave(text.names, cells_of(zip(*escaped, strict=True)), constants)


def encode_cells(names: tuple[str, ...], cells: list[bytes], constants: Mapping[str, Scalar]) -> Encoded:
    """A table: all its cells escaped together, then laid between the pieces of an object."""
    return _interleave(names, escape_all(cells), constants)


def _interleave(names: tuple[str, ...], cells: list[bytes], constants: Mapping[str, Scalar]) -> Encoded:
    """Row after row of escaped cells, each behind what is written before it."""
    if not cells:
        return Encoded(b"", 0)
    rows = len(cells) // len(names)
    opening, *between = openings(names, constants)
    pieces = [CLOSING + opening, b""]
    for piece in between:
        pieces += [piece, b""]
    pieces *= rows
    pieces[1::2] = cells
    pieces[0] = opening
    pieces.append(CLOSING)
    return Encoded(b"".join(pieces), rows)


def encode_records(records: list[dict[str, Any]], constants: Mapping[str, Scalar]) -> Encoded:
    """Materialised rows, one by one."""
    opening = _object_start(constants, ())
    lines = []
    for record in records:
        start = opening if constants.keys().isdisjoint(record) else _object_start(constants, record.keys())
        fields = dump(record)[1:]
        lines.append(start + fields if fields != b"}" else start.removesuffix(b",") + fields)
    return Encoded(b"\n".join([*lines, b""]), len(lines))


def openings(names: tuple[str, ...], constants: Mapping[str, Scalar]) -> list[bytes]:
    """What is written before each column's value: the object's start with the constants, then between two values."""
    start = _object_start(constants, names)
    return [(b'",' if index else start) + dump(name) + b':"' for index, name in enumerate(names)]


def _object_start(constants: Mapping[str, Scalar], taken: Collection[str]) -> bytes:
    kept = {name: value for name, value in constants.items() if name not in taken}
    return dump(kept)[:-1] + b"," if kept else b"{"


def dump(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """JSON of a value; text that came from bytes which are no UTF-8 (file names) shows U+FFFD in their place."""
    try:
        return orjson.dumps(value)
    except TypeError:  # also for numbers of more than 64 bits, which msgspec writes
        return msgspec.json.encode(_presentable(value))


def _presentable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_presentable(key): _presentable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_presentable(item) for item in value]
    return value
