"""Taking a Text apart when a stage needs its values one by one.

A Text is many rows in one buffer; most chunks go from file to encoder without ever being split. What is here serves the
stages that must look into rows: the parsers, the processors and the encoders' general road. Everything is split in
bulk, by the interpreter's own loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import AnyStr

import orjson

from hostagent.model import Batch, Text

# Bytes that hardly occur in a log and so serve to set rows apart whose text has line breaks in it. Those of the first
# kind stand in a JSON string as they are.
PLAIN = (b"\x7f", b"^", b"~", b"`", b"|")
RARE = (
    *PLAIN,
    b"\x1e",
    b"\0",
    b"\x1f",
    b"\x1d",
    b"\x1c",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x04",
    b"\x05",
    b"\x06",
    b"\x0e",
    b"\x0f",
)


def occurrences(character: AnyStr, data: AnyStr) -> int:
    """How often one character occurs. Taking it out is six times as fast as `count`, which looks at every byte."""
    return len(data) - len(data.replace(character, character[:0]))


def is_lines(text: Text) -> bool:
    """Whether the rows are messages and nothing else, each a line as it stood in a file."""
    return text.names == ("message",) and text.seps == (b"\n",) and not text.escaped


def absent_byte(data: bytes) -> bytes | None:
    """A byte that does not occur and can set rows apart; None when all are taken."""
    return next((byte for byte in RARE if byte not in data), None)


def absent_bytes(data: bytes, count: int, among: Iterable[bytes] = RARE) -> list[bytes] | None:
    """So many of them; None when there are not as many."""
    free = list(islice((byte for byte in among if byte not in data), count))
    return free if len(free) == count else None


def columns(text: Text) -> dict[str, list[bytes]]:
    """Each column's values, unescaped, in row order."""
    split = raw_columns(text)
    if text.escaped:
        split = [unescape_all(values) for values in split]
    return dict(zip(text.names, split, strict=True))


def raw_columns(text: Text) -> list[list[bytes]]:
    """Each column's values as they stand in the buffer."""
    last = text.seps[-1]
    if len(text.seps) == 1:
        return [text.data[: -len(last)].split(last)]
    common = absent_byte(text.data)
    if common is None:
        rows = [_split_row(row, text.seps) for row in text.data[: -len(last)].split(last)]
        return [list(column) for column in zip(*rows, strict=True)]
    flat = text.data
    for sep in text.seps:
        flat = flat.replace(sep, common)
    values = flat[: -len(common)].split(common)
    return [values[index :: len(text.seps)] for index in range(len(text.seps))]


def _split_row(row: bytes, seps: tuple[bytes, ...]) -> list[bytes]:
    values = []
    for sep in seps[:-1]:
        value, _, row = row.partition(sep)
        values.append(value)
    return [*values, row]


def rows_in(cells: list[bytes], width: int) -> list[tuple[bytes, ...]]:
    """The rows of a table of so many columns."""
    return list(zip(*[iter(cells)] * width, strict=True))


def cells_of(rows: Iterable[Iterable[bytes]]) -> list[bytes]:
    """The table that these rows are."""
    return list(chain.from_iterable(rows))


def raw_rows_of(batch: Batch) -> tuple[tuple[str, ...], list[tuple[bytes, ...]]]:
    """As `rows_of`, with the values of escaped text left as they stand in the buffer."""
    if batch.cells is not None:
        return batch.names, rows_in(batch.cells, len(batch.names))
    assert batch.text is not None, "a batch of materialised records has no table"
    return batch.text.names, list(zip(*raw_columns(batch.text), strict=True))


def unescape_all(values: list[bytes]) -> list[bytes]:
    """The insides of JSON strings as the text they stand for; a lone surrogate becomes U+FFFD, as UTF-8 has none."""
    if not any(b"\\" in value for value in values):
        return values
    return [text.encode() for text in orjson.loads(b'["' + b'","'.join(values) + b'"]')]


def columns_of(batch: Batch) -> dict[str, list[bytes]]:
    """Each column's values, unescaped, of a batch that holds text or cells."""
    if batch.text is not None:
        return columns(batch.text)
    cells = batch.cells or []
    return {name: cells[index :: len(batch.names)] for index, name in enumerate(batch.names)}


def rows_of(batch: Batch) -> tuple[tuple[str, ...], list[tuple[bytes, ...]]]:
    """Names and rows of a batch that holds text or cells."""
    if batch.cells is not None:
        return batch.names, rows_in(batch.cells, len(batch.names))
    assert batch.text is not None, "a batch of materialised records has no table"
    return batch.text.names, list(zip(*columns(batch.text).values(), strict=True))
