"""The `json` parser: the fields of an object that is the whole message take its place.

Runs after multiline. Whatever is no JSON object keeps its message: other values, objects cut off in the middle, and
objects nested so deeply that writing them down again might fail.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec

from hostagent.model import Batch
from hostagent.process.batches import row_count
from hostagent.process.text import cells_of, columns_of

MESSAGE = "message"
MOST_NESTED = 100

Fields = dict[str, Any]
_decode = msgspec.json.Decoder(Fields).decode


class JsonOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`time_key`: the field that is to be called `time`."""

    time_key: str | None = None


class JsonParser:
    """Parses messages that are JSON objects."""

    def __init__(self, options: JsonOptions) -> None:
        self._time_key = options.time_key

    def parse(self, batch: Batch) -> tuple[list[Batch], int]:
        table = columns_of(batch)
        if MESSAGE not in table:
            return [batch], row_count(batch)
        found = [self._fields(message) for message in table[MESSAGE]]
        return self._runs(batch, table, found), found.count(None)

    def _fields(self, message: bytes) -> Fields | None:
        try:
            fields = _decode(message)
        except (msgspec.MsgspecError, RecursionError):
            return None
        if message.count(b"[") + message.count(b"{") > MOST_NESTED and _is_nested_deeper(fields, MOST_NESTED):
            return None
        if self._time_key is not None and self._time_key in fields:
            fields["time"] = fields.pop(self._time_key)
        return fields

    def _runs(self, batch: Batch, table: dict[str, list[bytes]], found: list[Fields | None]) -> list[Batch]:
        """Batches of parsed and of unparsed records, in the order of the records."""
        names = tuple(table)
        batches = []
        rows = zip(found, zip(*table.values(), strict=True), strict=True)
        for unparsed, run in groupby(rows, key=lambda pair: pair[0] is None):
            if unparsed:
                kept = [row for _, row in run]
                batches.append(Batch(rows=len(kept), constants=batch.constants, names=names, cells=cells_of(kept)))
            else:
                records = [_beside(names, fields or {}, row) for fields, row in run]
                batches.append(Batch(rows=len(records), constants=batch.constants, records=records))
        return batches


def _beside(names: tuple[str, ...], fields: Fields, row: tuple[bytes, ...]) -> Fields:
    """The fields behind the columns the framing found, whose place they take where a name is the same."""
    if len(names) == 1:
        return fields
    kept = {name: value.decode() for name, value in zip(names, row, strict=True) if name != MESSAGE}
    return {name: value for name, value in kept.items() if name not in fields} | fields


def _is_nested_deeper(value: Any, levels: int) -> bool:  # noqa: ANN401 - any JSON value
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True
