"""The table `totals`: what remains of files that are forgotten, so that the books still balance years later.

Rows of files go two days after the files are gone. In the same transaction their bytes are added up here by source and
output, unaccounted ones included. Statements only, run by Checkpoint inside its transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from hostagent.state.database.ledger import UNKNOWN
from hostagent.state.database.positions import Progress
from hostagent.state.reckoning import Account, reckon

_ADD = (
    "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, output) DO UPDATE SET"
    " files = files + excluded.files, written = written + excluded.written, skipped = skipped + excluded.skipped,"
    " acked = acked + excluded.acked, lost = lost + excluded.lost,"
    " lost_unsized = lost_unsized + excluded.lost_unsized, unaccounted = unaccounted + excluded.unaccounted"
)


class Forgotten(NamedTuple):
    """What forgotten files of one source came to in one output."""

    source: str
    output: str
    files: int
    written: int
    skipped: int
    acked: int
    lost: int
    lost_unsized: int
    unaccounted: int


def forget(connection: sqlite3.Connection, files: Collection[int]) -> None:
    """Add files to the totals, then remove their rows."""
    for file in files:
        source = connection.execute("SELECT source FROM files WHERE id = ?", (file,)).fetchone()[0]
        connection.executemany(_ADD, [_line(source, output, sum_) for output, sum_ in _accounts(connection, file)])
    ids = [(file,) for file in files]
    connection.executemany("DELETE FROM files WHERE id = ?", ids)
    connection.executemany("DELETE FROM positions WHERE file = ?", ids)


def load(connection: sqlite3.Connection) -> list[Forgotten]:
    """All totals."""
    return [Forgotten(*row) for row in connection.execute("SELECT * FROM totals ORDER BY source, output").fetchall()]


def _accounts(connection: sqlite3.Connection, file: int) -> list[tuple[str, Account]]:
    """A file that is gone: nothing waits in it, and what of it is spooled counts as acked."""
    rows = connection.execute(
        "SELECT file, output, offset, skipped, acked, wanted FROM positions WHERE file = ?", (file,)
    ).fetchall()
    losses = connection.execute('SELECT output, start, "end" FROM losses WHERE file = ?', (file,)).fetchall()
    ends = [end for _, _, end in losses if end != UNKNOWN]
    exists = max([row[2] for row in rows] + ends, default=0)
    found = []
    for row in rows:
        progress = Progress(*row)
        mine = [(start, None if end == UNKNOWN else end) for output, start, end in losses if output in {"", row[1]}]
        found.append((row[1], reckon(progress, exists=exists, losses=mine)))
    return found


def _line(source: str, output: str, sum_: Account) -> Forgotten:
    return Forgotten(
        source,
        output,
        1,
        sum_.written,
        sum_.skipped,
        sum_.delivered,
        sum_.lost,
        sum_.lost_unsized,
        sum_.unaccounted,
    )
