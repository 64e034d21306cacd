"""The table `reclaims`: blocks that a spool has lost and that the reader is to take back from their files.

Their positions have moved long ago, so nothing else would read them again. Statements only, run by Checkpoint inside
its transactions.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from hostagent.state.database import inflight, positions
from hostagent.state.database.ledger import LossReason
from hostagent.state.database.packed import pack_parts, parts_in
from hostagent.state.rows import InflightBlock

_ADD = "INSERT INTO reclaims (id, output, observed_ns, parts, reason) VALUES (?, ?, ?, ?, ?)"


class Reclaim(NamedTuple):
    """A block that a spool has lost, and why: it is to be cut again from its files."""

    seq: int
    reason: str
    block: InflightBlock


def add(connection: sqlite3.Connection, block: InflightBlock, reason: LossReason) -> None:
    """One more."""
    connection.execute(_ADD, (block.id, block.output, block.observed_ns, pack_parts(block.parts), reason))


def add_passed(connection: sqlite3.Connection, output: str) -> None:
    """Have the blocks of an output in flight that its positions have passed taken back once more."""
    for block in passed(connection, output):
        add(connection, block, LossReason.SPOOL_MISSING)


def passed(connection: sqlite3.Connection, output: str) -> list[InflightBlock]:
    """Of the blocks of an output in flight those that its positions have passed, since a spool had them once."""
    blocks = inflight.load(connection, output)
    named = {range_.file for block in blocks for part in block.parts for range_ in part.ranges}
    reached = positions.of_files(connection, output, named)
    return [
        block
        for block in blocks
        if any(range_.end <= reached.get(range_.file, 0) for part in block.parts for range_ in part.ranges)
    ]


def oldest(connection: sqlite3.Connection, output: str, limit: int) -> list[Reclaim]:
    """The oldest blocks that an output's spool has lost; one whose row is damaged has no parts."""
    rows = connection.execute(
        "SELECT seq, reason, id, output, observed_ns, parts FROM reclaims WHERE output = ? ORDER BY seq LIMIT ?",
        (output, limit),
    ).fetchall()
    return [Reclaim(row[0], row[1], InflightBlock(row[2], row[3], row[4], parts_in(row[5]))) for row in rows]


def outputs(connection: sqlite3.Connection) -> set[str]:
    """The outputs that have any."""
    return {row[0] for row in connection.execute("SELECT DISTINCT output FROM reclaims").fetchall()}


def waits(connection: sqlite3.Connection, output: str) -> bool:
    """Whether an output has any. Asked for each that is taken back, and there may be a hundred thousand."""
    return connection.execute("SELECT 1 FROM reclaims WHERE output = ? LIMIT 1", (output,)).fetchone() is not None


def end(connection: sqlite3.Connection, reclaim: Reclaim) -> None:
    """It is in flight as it stands here, as far as it has ranges; what it had besides is a loss."""
    connection.execute("DELETE FROM reclaims WHERE seq = ?", (reclaim.seq,))
    inflight.begin_again(connection, reclaim.block)


def files_named(connection: sqlite3.Connection) -> set[int]:
    """Files that a block to be taken back, or one in flight, has ranges of: their rows are needed."""
    rows = connection.execute("SELECT parts FROM inflight UNION ALL SELECT parts FROM reclaims").fetchall()
    return {range_.file for (packed,) in rows for part in parts_in(packed) for range_ in part.ranges}
