"""The `regex` parser: named groups of a pattern become fields in place of the message.

Runs after multiline. Where the pattern can be confined to a line, the messages of a chunk are one buffer for it and are
never looked at one by one. Records that don't match keep their message. Nothing limits how long a pattern may take: it
runs in the reader's thread, and one that backtracks without end stops that.
"""

from __future__ import annotations

from itertools import groupby
from typing import cast

import msgspec

from hostagent.hookspecs import Pattern
from hostagent.model import Batch
from hostagent.process.batches import row_count
from hostagent.process.confine import confine
from hostagent.process.patterns import compile_pattern, search
from hostagent.process.scan import scans
from hostagent.process.text import columns_of, is_lines, occurrences

MESSAGE = "message"
Row = tuple[bytes, ...]


class RegexOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`pattern` is searched for in the message; each of its named groups is a field."""

    pattern: Pattern

    def __post_init__(self) -> None:
        try:
            pattern = compile_pattern(self.pattern)
        except ValueError as error:
            raise ValueError(f"pattern: {error}") from None
        if not pattern.chars.groupindex:
            raise ValueError("pattern: has no named group; write (?P<name>...) around each part that is to be a field")


class RegexParser:
    """Parses messages by one pattern. A group that took no part in the match is an empty field."""

    def __init__(self, options: RegexOptions) -> None:
        self._pattern = compile_pattern(options.pattern)
        self._names = tuple(self._pattern.chars.groupindex)
        confined = confine(options.pattern)
        numbers = list(self._pattern.chars.groupindex.values())
        self._scans = scans(self._pattern, confined, numbers) if confined is not None else None

    def parse(self, batch: Batch) -> tuple[list[Batch], int]:
        text = batch.text
        if text is not None and is_lines(text):
            found = self._in_lines(text.data)
            if all(found):
                return [self._parsed(batch, (), found)], 0
        table = columns_of(batch)
        if MESSAGE not in table:
            return [batch], row_count(batch)
        messages = table[MESSAGE]
        lines = b"\n".join([*messages, b""])
        if occurrences(b"\n", lines) == len(messages):
            found = self._in_lines(lines)
        else:
            found = [self._in_record(message) for message in messages]
        return self._runs(batch, table, found), found.count(None)

    def _in_lines(self, lines: bytes) -> list[Row | None]:
        if self._scans is None:
            return [self._in_record(line) for line in lines[:-1].split(b"\n")]
        chars, octets = self._scans
        if octets is not None and lines.isascii():
            return octets.rows(lines)
        rows = chars.rows(lines.decode())
        return [None if row is None else tuple([value.encode() for value in row]) for row in rows]

    def _in_record(self, message: bytes) -> Row | None:
        match = search(self._pattern, message)
        if match is None:
            return None
        groups = match.group(*self._names) if len(self._names) > 1 else (match.group(self._names[0]),)
        return tuple([value.encode() if isinstance(value, str) else value or b"" for value in groups])

    def _runs(self, batch: Batch, table: dict[str, list[bytes]], found: list[Row | None]) -> list[Batch]:
        """Batches of parsed and of unparsed records, in the order of the records."""
        others = tuple(name for name in table if name != MESSAGE and name not in self._names)
        rows = zip(found, zip(*table.values(), strict=True), strict=True)
        kept = [list(table).index(name) for name in others]
        batches = []
        for unparsed, run in groupby(rows, key=lambda pair: pair[0] is None):
            if unparsed:
                values = [row for _, row in run]
                batches.append(Batch(rows=len(values), constants=batch.constants, names=tuple(table), values=values))
            else:
                parsed: list[Row | None] = [(*[row[index] for index in kept], *(fields or ())) for fields, row in run]
                batches.append(self._parsed(batch, others, parsed))
        return batches

    def _parsed(self, batch: Batch, others: tuple[str, ...], found: list[Row | None]) -> Batch:
        values = cast(list[Row], found)
        return Batch(rows=len(values), constants=batch.constants, names=(*others, *self._names), values=values)
