"""The tables `inflight` and `spooled`: blocks that were cut and not yet delivered, and where they are.

A row of `inflight` is a block about to be sent; after a crash it is cut again from its files. A row of `spooled` is a
block whose position has moved because the spool holds it: it names the bytes even if the spool is gone. Statements
only, run by Checkpoint inside its transactions.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hostagent.model import Block, Loss
from hostagent.state.database import positions
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import InflightBlock, InflightPart, parts_of
from hostagent.state.spool.spooled import Place, SpoolHeader, losses_in, merge

_AT_A_TIME = 1000
_NOWHERE = Place(2**62, 0)
_HOLD = "INSERT OR REPLACE INTO spooled VALUES (?, ?, ?, ?)"

_encode_parts = msgspec.msgpack.Encoder().encode
_decode_parts = msgspec.msgpack.Decoder(tuple[InflightPart, ...]).decode


class SpoolChange(NamedTuple):
    """What has become of one output's spool since the last commit: blocks that it took, and where its head is now."""

    output: str
    added: Sequence[tuple[Place, Block]]
    head: Place


def parts_in(packed: bytes) -> tuple[InflightPart, ...]:
    """No parts where they are damaged: their bytes lie behind the positions and are read again."""
    try:
        return _decode_parts(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return ()


# -- in flight ---------------------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, blocks: Iterable[Block]) -> None:
    """Blocks that are about to be sent."""
    connection.executemany(
        "INSERT OR IGNORE INTO inflight (id, output, observed_ns, parts) VALUES (?, ?, ?, ?)",
        [(block.id, block.output, block.observed_ns, _encode_parts(parts_of(block))) for block in blocks],
    )


def end(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Blocks that are acked, or forgotten."""
    connection.executemany("DELETE FROM inflight WHERE id = ?", [(id_,) for id_ in ids])


def replace(connection: sqlite3.Connection, blocks: Iterable[InflightBlock]) -> None:
    """Blocks that no longer cover what they did."""
    values = [(_encode_parts(block.parts), block.id) for block in blocks]
    connection.executemany("UPDATE inflight SET parts = ? WHERE id = ?", values)


def load(connection: sqlite3.Connection, output: str) -> list[InflightBlock]:
    """The blocks of an output in flight, in cut order, but for those whose row is damaged."""
    rows = connection.execute(
        "SELECT id, output, observed_ns, parts FROM inflight WHERE output = ? ORDER BY seq", (output,)
    ).fetchall()
    return [InflightBlock(row[0], row[1], row[2], parts) for row in rows if (parts := parts_in(row[3]))]


def files_named(connection: sqlite3.Connection) -> set[int]:
    """Files that a block in flight has ranges of."""
    rows = connection.execute("SELECT parts FROM inflight").fetchall()
    return {range_.file for (packed,) in rows for part in parts_in(packed) for range_ in part.ranges}


# -- in the spool ------------------------------------------------------------------------------------------------------


def change(connection: sqlite3.Connection, spool: SpoolChange) -> None:
    """Rows for what a spool took; those before its head were delivered and go."""
    rows = [(spool.output, *place, _encode_parts(parts_of(block))) for place, block in spool.added]
    connection.executemany(_HOLD, rows)
    _forget_before(connection, spool.output, spool.head)


def lose(
    connection: sqlite3.Connection, output: str, where: tuple[Place, Place], reason: LossReason, at_ns: int
) -> tuple[list[Loss], list[Place]]:
    """Take the rows of places in [start, stop) away: their losses, for the ledger, and the places."""
    rows = connection.execute(
        "SELECT segment, offset, parts FROM spooled WHERE output = ? AND (segment, offset) >= (?, ?)"
        " AND (segment, offset) < (?, ?) ORDER BY segment, offset",
        (output, *where[0], *where[1]),
    ).fetchall()
    places = [Place(segment, offset) for segment, offset, _ in rows]
    connection.executemany(
        "DELETE FROM spooled WHERE output = ? AND segment = ? AND offset = ?", [(output, *place) for place in places]
    )
    lost = [loss for *_, packed in rows for loss in losses_in(parts_in(packed), output, reason, at_ns)]
    return merge(lost), places


def reconcile(
    connection: sqlite3.Connection, output: str, held: Iterable[tuple[Place, SpoolHeader]], done: Place, at_ns: int
) -> tuple[list[Loss], list[Place]]:
    """At start: make the rows those of the blocks that a spool holds; what it should hold and does not, as `lose`.

    A block without a row was spooled and not committed: now it is, and need not be read again.
    """
    _forget_before(connection, output, done)
    in_flight = {block.id: block.parts for block in load(connection, output)}
    gone: list[Place] = []
    looked_at = Place(0, 0)
    blocks = iter(held)
    # Some at a time: of small blocks a spool holds a million.
    while some := list(itertools.islice(blocks, _AT_A_TIME)):
        up_to = Place(some[-1][0].segment, some[-1][0].offset + 1)
        rows = _places(connection, output, looked_at, up_to)
        for place, header in some:
            if place in rows:
                rows.remove(place)
            else:
                _adopt(connection, place, header, in_flight)
        gone += sorted(rows)
        looked_at = up_to
    gone += sorted(_places(connection, output, looked_at, _NOWHERE))
    lost: list[Loss] = []
    for place in gone:
        just_there = (place, Place(place.segment, place.offset + 1))
        lost += lose(connection, output, just_there, LossReason.SPOOL_MISSING, at_ns)[0]
    return merge(lost), gone


def _adopt(
    connection: sqlite3.Connection, place: Place, header: SpoolHeader, in_flight: dict[str, tuple[InflightPart, ...]]
) -> None:
    """Commit a spooled block at last. Blocks in flight that lie before it in a file were done before it.

    One that is not in flight moves a position only if it goes on from there, since blocks before it may have been
    forgotten together with their rows.
    """
    begins = {range_.file: range_.start for part in reversed(header.parts) for range_ in reversed(part.ranges)}
    ids = [id_ for id_, parts in in_flight.items() if id_ == header.id or _before(parts, begins)]
    acked = [(header.output, [range_ for part in in_flight.pop(id_) for range_ in part.ranges]) for id_ in ids]
    positions.advance(connection, positions.reached_in(acked))
    end(connection, ids)
    positions.adopt(connection, header.output, header.parts)
    connection.execute(_HOLD, (header.output, *place, _encode_parts(header.parts)))


def spooled(connection: sqlite3.Connection) -> list[tuple[str, Place, tuple[InflightPart, ...]]]:
    """Every block that a spool should hold: its output, its place, what it covers."""
    rows = connection.execute("SELECT output, segment, offset, parts FROM spooled").fetchall()
    return [(output, Place(segment, offset), parts_in(packed)) for output, segment, offset, packed in rows]


def _places(connection: sqlite3.Connection, output: str, start: Place, stop: Place) -> set[Place]:
    rows = connection.execute(
        "SELECT segment, offset FROM spooled WHERE output = ? AND (segment, offset) >= (?, ?)"
        " AND (segment, offset) < (?, ?)",
        (output, *start, *stop),
    ).fetchall()
    return {Place(*row) for row in rows}


def _forget_before(connection: sqlite3.Connection, output: str, head: Place) -> None:
    connection.execute("DELETE FROM spooled WHERE output = ? AND (segment, offset) < (?, ?)", (output, *head))


def _before(parts: Sequence[InflightPart], begins: Mapping[int, int]) -> bool:
    """Whether a block lies before another one, which begins there in its files, in a file they share."""
    return any(range_.end <= begins.get(range_.file, 0) for part in parts for range_ in part.ranges)
