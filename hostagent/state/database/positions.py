"""The table `positions`: how far each output has come in each file, and how many of those bytes it has really acked.

Statements only, run by Checkpoint inside its transactions. The offset is the furthest end of any acked range, `acked`
the sum of what the ranges added: `skipped + acked = offset` unless a range was passed over, which the audit looks for.
`wanted` is 0 once an output is not to have any more of the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hostagent.model import Block
from hostagent.state.rows import InflightPart, Position

_SET = (
    "INSERT INTO positions VALUES (?1, ?2, ?3, ?4, ?3, 0, 1) ON CONFLICT (file, output) DO UPDATE"
    " SET offset = excluded.offset, anchor = excluded.anchor, skipped = excluded.offset - acked, wanted = 1"
)
_ADVANCE = (
    "INSERT INTO positions VALUES (?1, ?2, ?4, ?5, 0, ?4 - ?3, 1) ON CONFLICT (file, output) DO UPDATE"
    " SET acked = acked + excluded.offset - max(offset, ?3), offset = excluded.offset,"
    " anchor = excluded.anchor, wanted = 1 WHERE excluded.offset > offset"
)
_EXTEND = (
    "UPDATE positions SET acked = acked + ?1 - offset, offset = ?1, anchor = ?2"
    " WHERE file = ?3 AND output = ?4 AND offset >= ?5 AND offset < ?1"
)
_OFFSET = "SELECT file, offset FROM positions WHERE file = ? AND output = ?"
_RELEASE = "UPDATE positions SET wanted = 0 WHERE file = ? AND output = ?"

Start = tuple[int, str, int, bytes]
"""A file, an output, the offset it stands at, the anchor there."""


class Progress(NamedTuple):
    """A row of the table without its anchor."""

    file: int
    output: str
    offset: int
    skipped: int
    acked: int
    wanted: int


class Reached(NamedTuple):
    """What some blocks bring one output in one file: all bytes from `start` to `end`."""

    file: int
    output: str
    start: int
    end: int
    anchor: bytes


def put(connection: sqlite3.Connection, starts: Iterable[Start]) -> None:
    """Put outputs where they are said to stand; what lies before and was not acked counts as skipped."""
    connection.executemany(_SET, starts)


def begin(connection: sqlite3.Connection, file: int, positions: Mapping[str, Position]) -> None:
    """The outputs of a new file."""
    put(connection, [(file, output, position.offset, position.anchor) for output, position in positions.items()])


def release(connection: sqlite3.Connection, pairs: Iterable[tuple[int, str]]) -> None:
    """Outputs that are not to have more of a file than they have."""
    connection.executemany(_RELEASE, pairs)


def advance(connection: sqlite3.Connection, reached: Iterable[Reached]) -> None:
    """Move positions forward to what was acked. Doing it again changes nothing."""
    connection.executemany(_ADVANCE, reached)


def adopt(connection: sqlite3.Connection, output: str, parts: Sequence[InflightPart]) -> None:
    """Move positions over ranges of a block whose row is not there, but only where it goes on from them."""
    connection.executemany(
        _EXTEND, [(end, anchor, file, output, start) for part in parts for file, start, end, anchor in part.ranges]
    )


def reached_by(blocks: Iterable[Block]) -> list[Reached]:
    """What acked blocks, in order, bring each output in each file."""
    return reached_in((block.output, [range_ for part in block.parts for range_ in part.ranges]) for block in blocks)


def reached_in(acked: Iterable[tuple[str, Iterable[tuple[int, int, int, bytes]]]]) -> list[Reached]:
    """The same from outputs and their ranges.

    What a spool lost and the reader has taken back lies far before what is read now: ranges with a gap stay apart.
    """
    reached: list[Reached] = []
    latest: dict[tuple[int, str], int] = {}
    for output, ranges in acked:
        for file, start, end, anchor in ranges:
            at = latest.get((file, output))
            if at is None or start > reached[at].end:
                latest[file, output] = len(reached)
                reached.append(Reached(file, output, start, end, anchor))
            elif end > reached[at].end:
                reached[at] = Reached(file, output, min(start, reached[at].start), end, anchor)
    return reached


def of_files(connection: sqlite3.Connection, output: str, files: Iterable[int]) -> dict[int, int]:
    """Where an output stands in these files, those left out in which it stands nowhere."""
    rows = (connection.execute(_OFFSET, (file, output)).fetchone() for file in files)
    return {row[0]: row[1] for row in rows if row is not None}


def load(connection: sqlite3.Connection) -> list[Progress]:
    """All rows, by file and output; one that makes no sense is left out."""
    rows = connection.execute(
        "SELECT file, output, offset, skipped, acked, wanted FROM positions ORDER BY file, output"
    ).fetchall()
    return [Progress(*row) for row in rows if tuple(map(type, row)) == (int, str, int, int, int, int)]
