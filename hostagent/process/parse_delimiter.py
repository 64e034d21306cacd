"""The `delimiter` parser: the values between separators take the message's place, under the names they are given.

Runs after multiline. A value that begins with a quote ends with one and may hold separators; a quote within it is
written twice. A message with more or fewer values than names keeps its text.
"""

from __future__ import annotations

import csv
from itertools import groupby
from typing import Annotated

import msgspec

from hostagent.model import Batch
from hostagent.process.text import cells_of, columns_of

MESSAGE = "message"
QUOTE = b'"'
Row = tuple[bytes, ...]


class DelimiterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys` are the fields' names in the order of the values; `separator` stands between two values."""

    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    separator: str = ","

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("keys: name the fields in the order of the values")
        if len(set(self.keys)) < len(self.keys) or "" in self.keys:
            raise ValueError("keys: every field needs a name of its own")
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ValueError("separator: one character, and no quote or line end")


class DelimiterParser:
    """Parses messages that are values with a separator between them."""

    def __init__(self, options: DelimiterOptions) -> None:
        self._names = options.keys
        self._separator = options.separator
        self._separator_bytes = options.separator.encode()

    def parse(self, batch: Batch) -> tuple[list[Batch], int]:
        if batch.records is not None:
            return [batch], 0
        table = columns_of(batch)
        if MESSAGE not in table:
            return [batch], len(next(iter(table.values())))
        found = [self._values(message) for message in table[MESSAGE]]
        return self._runs(batch, table, found), found.count(None)

    def _values(self, message: bytes) -> Row | None:
        if QUOTE in message:
            return self._quoted(message.decode())
        values = message.split(self._separator_bytes)
        return tuple(values) if len(values) == len(self._names) else None

    def _quoted(self, message: str) -> Row | None:
        try:
            rows = list(csv.reader([message], delimiter=self._separator, strict=True))
        except csv.Error:
            return None
        if len(rows) != 1 or len(rows[0]) != len(self._names):
            return None
        return tuple([value.encode() for value in rows[0]])

    def _runs(self, batch: Batch, table: dict[str, list[bytes]], found: list[Row | None]) -> list[Batch]:
        """Batches of parsed and of unparsed records, in the order of the records."""
        others = tuple(name for name in table if name != MESSAGE and name not in self._names)
        kept = [list(table).index(name) for name in others]
        rows = zip(found, zip(*table.values(), strict=True), strict=True)
        batches = []
        for unparsed, run in groupby(rows, key=lambda pair: pair[0] is None):
            if unparsed:
                names, made = tuple(table), [row for _, row in run]
            else:
                names = (*others, *self._names)
                made = [(*[row[index] for index in kept], *(fields or ())) for fields, row in run]
            batches.append(Batch(rows=len(made), constants=batch.constants, names=names, cells=cells_of(made)))
        return batches
