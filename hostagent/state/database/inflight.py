"""The table `inflight`: blocks that are about to be sent, or on their way.

After a crash they are cut again from their files: same ranges, same id. Statements only, run by Checkpoint inside its
transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from hostagent.model import Block
from hostagent.state.database.packed import any_ranges, pack_parts, parts_in
from hostagent.state.rows import InflightBlock, Position, parts_of

_BEGIN = "INSERT OR IGNORE INTO inflight (id, output, observed_ns, parts) VALUES (?, ?, ?, ?)"


def begin(connection: sqlite3.Connection, blocks: Iterable[Block]) -> None:
    """Blocks that are about to be sent."""
    connection.executemany(
        _BEGIN, [(block.id, block.output, block.observed_ns, pack_parts(parts_of(block))) for block in blocks]
    )


def begin_again(connection: sqlite3.Connection, block: InflightBlock) -> None:
    """A block that is cut again, as far as it has ranges. It may be on its way already."""
    if any_ranges(block.parts):
        connection.execute(_BEGIN, (block.id, block.output, block.observed_ns, pack_parts(block.parts)))


def end(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Blocks that are acked, or forgotten."""
    connection.executemany("DELETE FROM inflight WHERE id = ?", [(id_,) for id_ in ids])


def replace(connection: sqlite3.Connection, blocks: Iterable[InflightBlock]) -> None:
    """Blocks that no longer cover what they did; those that cover nothing are forgotten."""
    for block in blocks:
        if any_ranges(block.parts):
            connection.execute("UPDATE inflight SET parts = ? WHERE id = ?", (pack_parts(block.parts), block.id))
        else:
            end(connection, [block.id])


def load(connection: sqlite3.Connection, output: str) -> list[InflightBlock]:
    """The blocks of an output in flight, in cut order, but for those whose row is damaged."""
    rows = connection.execute(
        "SELECT id, output, observed_ns, parts FROM inflight WHERE output = ? ORDER BY seq", (output,)
    ).fetchall()
    return [InflightBlock(row[0], row[1], row[2], parts) for row in rows if (parts := parts_in(row[3]))]


def furthest(connection: sqlite3.Connection) -> dict[int, Position]:
    """The furthest end of any block in flight, of whatever output, by file."""
    ends: dict[int, Position] = {}
    for (packed,) in connection.execute("SELECT parts FROM inflight").fetchall():
        for part in parts_in(packed):
            for span in part.ranges:
                if span.file not in ends or span.end > ends[span.file].offset:
                    ends[span.file] = Position(span.end, span.anchor)
    return ends


def forget(connection: sqlite3.Connection, output: str) -> None:
    """All blocks of an output: what they cover is read as if it had never been read."""
    connection.execute("DELETE FROM inflight WHERE output = ?", (output,))
