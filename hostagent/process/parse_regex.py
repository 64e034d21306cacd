"""The `regex` parser: named groups of a pattern become fields in place of the message.

Runs after multiline. Where the pattern can be confined to a line, the messages of a chunk are one buffer for it and are
never looked at one by one. Records that don't match keep their message. Nothing limits how long a pattern may take: it
runs in the reader's thread, and one that backtracks without end stops that.
"""

from __future__ import annotations

from itertools import groupby

import msgspec

from hostagent.hookspecs import Pattern
from hostagent.model import Batch
from hostagent.process.batches import row_count
from hostagent.process.confine import confine
from hostagent.process.patterns import compile_pattern, search
from hostagent.process.scan import Found, scans
from hostagent.process.text import cells_of, columns_of, is_lines, occurrences, rows_in

MESSAGE = "message"


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
            if not found.missed:
                return [self._table(batch, self._names, found.cells)], 0
            table = columns_of(batch)
        else:
            table = columns_of(batch)
            if MESSAGE not in table:
                return [batch], row_count(batch)
            messages = table[MESSAGE]
            lines = b"\n".join([*messages, b""])
            whole = occurrences(b"\n", lines) == len(messages)
            found = self._in_lines(lines) if whole else self._in_records(messages)
        return self._runs(batch, table, found), len(found.missed)

    def _in_lines(self, lines: bytes) -> Found[bytes]:
        if self._scans is None:
            return self._in_records(lines[:-1].split(b"\n"))
        chars, octets = self._scans
        if octets is not None and lines.isascii():
            return octets.find(lines)
        cells, missed = chars.find(lines.decode())
        return Found("\n".join(cells).encode().split(b"\n") if cells else [], missed)

    def _in_records(self, messages: list[bytes]) -> Found[bytes]:
        cells: list[bytes] = []
        missed: list[int] = []
        for number, message in enumerate(messages):
            match = search(self._pattern, message)
            if match is None:
                missed.append(number)
            else:
                groups = [match[name] for name in self._names]
                cells += [value.encode() if isinstance(value, str) else value or b"" for value in groups]
        return Found(cells, missed)

    def _runs(self, batch: Batch, table: dict[str, list[bytes]], found: Found[bytes]) -> list[Batch]:
        """Batches of parsed and of unparsed records, in the order of the records."""
        others = tuple(name for name in table if name != MESSAGE and name not in self._names)
        kept = [list(table).index(name) for name in others]
        missed = set(found.missed)
        parsed = iter(rows_in(found.cells, len(self._names)))
        batches = []
        for unparsed, run in groupby(enumerate(zip(*table.values(), strict=True)), lambda line: line[0] in missed):
            rows = [row for _, row in run]
            if unparsed:
                batches.append(self._table(batch, tuple(table), cells_of(rows)))
            else:
                fields = [(*[row[index] for index in kept], *next(parsed)) for row in rows]
                batches.append(self._table(batch, (*others, *self._names), cells_of(fields)))
        return batches

    @staticmethod
    def _table(batch: Batch, names: tuple[str, ...], cells: list[bytes]) -> Batch:
        return Batch(rows=len(cells) // len(names), constants=batch.constants, names=names, cells=cells)
