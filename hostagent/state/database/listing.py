"""The tables `spooled` and `segments`: what every spool should hold, whatever has become of its files.

A row of `spooled` is a block whose position has moved because a spool has it: it names the bytes even if the spool is
gone. A row of `segments` says up to where in a segment every block has had such a row: one that has none any more was
delivered or given up. Statements only, run by Checkpoint inside its transactions.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from hostagent.model import Block, Loss, Range
from hostagent.state.database import inflight, positions, reclaims
from hostagent.state.database.kinship import Kinship
from hostagent.state.database.ledger import LossReason
from hostagent.state.database.packed import any_ranges, pack_parts, parts_in
from hostagent.state.rows import InflightBlock, InflightPart, parts_of
from hostagent.state.spool.spooled import Place, SpoolHeader, losses_in, merge

_AT_A_TIME = 1000
_NOWHERE = Place(2**62, 0)
_REACH = "INSERT OR REPLACE INTO segments (output, segment, end) VALUES (?, ?, ?)"
_HOLD = "INSERT OR REPLACE INTO spooled (output, segment, offset, parts, id, observed_ns) VALUES (?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM spooled WHERE output = ? AND segment = ? AND offset = ?"
_FORGET_SEGMENTS = (
    "DELETE FROM segments WHERE output = ?1 AND segment < ?2"
    " AND segment < (SELECT max(segment) FROM segments WHERE output = ?1)"
)
# What was in the spool and is not meant to be given up.
_RECLAIMED = frozenset({LossReason.SPOOL_DAMAGED, LossReason.SPOOL_MISSING})


class SpoolChange(NamedTuple):
    """What has become of one output's spool since the last commit: blocks that it took, and where its head is now.

    Every block before `end` in its segment is among those that were added, now or earlier. `gone` are those that the
    spool has lost again, or dropped, before anybody was told that it has them.
    """

    output: str
    added: Sequence[tuple[Place, Block]]
    head: Place
    end: Place = Place(0, 0)
    gone: Sequence[Block] = ()


def change(connection: sqlite3.Connection, spool: SpoolChange, at_ns: int) -> list[Loss]:
    """Rows for what a spool took; those before its head were delivered and go. Returns what is lost at once."""
    rows = [
        (spool.output, *place, pack_parts(parts_of(block)), _whole(block), block.observed_ns)
        for place, block in spool.added
    ]
    connection.executemany(_HOLD, rows)
    if rows:
        connection.execute(_REACH, (spool.output, *spool.end))
    forget_drained(connection, spool.output, spool.head)
    lost: list[Loss] = []
    for block in spool.gone:
        row = InflightBlock(_whole(block) or "", spool.output, block.observed_ns, parts_of(block))
        lost += _lose(connection, row, LossReason.SPOOL_DAMAGED, at_ns)
    return merge(lost)


def forget_drained(connection: sqlite3.Connection, output: str, head: Place) -> None:
    """Take away the rows of what lies before the head of a spool."""
    connection.execute("DELETE FROM spooled WHERE output = ? AND (segment, offset) < (?, ?)", (output, *head))
    # The highest number stays: a spool that begins anew goes on from it.
    connection.execute(_FORGET_SEGMENTS, (output, head.segment))


def listed_up_to(connection: sqlite3.Connection, output: str) -> dict[int, int]:
    """By segment of an output's spool the place before which every block has had a row."""
    rows = connection.execute("SELECT segment, end FROM segments WHERE output = ?", (output,)).fetchall()
    return dict(rows)


def note_listed(connection: sqlite3.Connection, output: str, ends: Mapping[int, int]) -> None:
    """Up to these places in these segments every block has had a row, or an entry in the ledger."""
    connection.executemany(_REACH, [(output, *place) for place in ends.items()])


def lose(
    connection: sqlite3.Connection, output: str, where: tuple[Place, Place], reason: LossReason, at_ns: int
) -> tuple[list[Loss], list[Place]]:
    """Take the rows of places in [start, stop) away: their losses, for the ledger, and the places.

    What was not given up on purpose is no loss yet: it may still be in its files, so it becomes a row of `reclaims`.
    """
    rows = connection.execute(
        "SELECT segment, offset, parts, id, observed_ns FROM spooled WHERE output = ?"
        " AND (segment, offset) >= (?, ?) AND (segment, offset) < (?, ?) ORDER BY segment, offset",
        (output, *where[0], *where[1]),
    ).fetchall()
    places = [Place(row[0], row[1]) for row in rows]
    connection.executemany(_FORGET, [(output, *place) for place in places])
    lost: list[Loss] = []
    for *_, packed, id_, observed_ns in rows:
        lost += _lose(connection, InflightBlock(id_ or "", output, observed_ns, parts_in(packed)), reason, at_ns)
    return merge(lost), places


def _lose(connection: sqlite3.Connection, block: InflightBlock, reason: LossReason, at_ns: int) -> list[Loss]:
    """Have a block read again, if it is whole and was not given up on purpose; else what it has is lost."""
    if block.id and reason in _RECLAIMED and any_ranges(block.parts):
        reclaims.add(connection, block, reason)
        return []
    return losses_in(block.parts, block.output, reason, at_ns)


def reconcile(
    connection: sqlite3.Connection,
    output: str,
    held: Iterable[tuple[Place, SpoolHeader]],
    drained: tuple[Place, Place],
    *,
    kin: Kinship,
    at_ns: int,
) -> tuple[list[Loss], list[Place]]:
    """At start: make the rows those of the blocks that a spool holds; what it should hold and does not, as `lose`.

    A block that never had a row was spooled and not committed: now it is, and need not be read again.
    """
    if kin is Kinship.SAME:
        connection.executemany(_FORGET, [(output, *place) for place in _places(connection, output, *drained)])
    elif kin is Kinship.FOREIGN:
        _disclaim(connection, output)
    in_flight = {block.id: block.parts for block in inflight.load(connection, output)}
    taken_back = {block.id for block in reclaims.passed(connection, output)}
    # What lies before the last place that was listed, and has no row, was done with already.
    listed = Place(*max(listed_up_to(connection, output).items(), default=(0, 0)))
    gone: list[Place] = []
    lost: list[Loss] = []
    looked_at = Place(0, 0)
    blocks = iter(held)
    # Some at a time: of small blocks a spool holds a million.
    while some := list(itertools.islice(blocks, _AT_A_TIME)):
        up_to = Place(some[-1][0].segment, some[-1][0].offset + 1)
        rows = _rows(connection, output, looked_at, up_to)
        unknown: list[tuple[Place, SpoolHeader]] = []
        for place, header in some:
            row = rows.get(place)
            if row is not None and _is_of(row, header):
                del rows[place]
            elif row is not None or place >= listed or kin is Kinship.FOREIGN:
                unknown.append((place, header))
        for place in sorted(rows):  # that of another block gives its place to the one that is there
            lost += _lose_missing(connection, output, place, at_ns)
        for place, header in unknown:
            _adopt(connection, output, place, header, in_flight=in_flight, taken_back=taken_back, kin=kin)
        gone += sorted(rows)
        looked_at = up_to
    for place in sorted(_places(connection, output, looked_at, _NOWHERE)):
        lost += _lose_missing(connection, output, place, at_ns)
        gone.append(place)
    return merge(lost), gone


def _disclaim(connection: sqlite3.Connection, output: str) -> None:
    """Of segments that have the same numbers in another past nothing was listed here. The highest number stays."""
    highest = max(listed_up_to(connection, output), default=0)
    connection.execute("DELETE FROM segments WHERE output = ?", (output,))
    connection.execute(_REACH, (output, highest, 0))


def _lose_missing(connection: sqlite3.Connection, output: str, place: Place, at_ns: int) -> list[Loss]:
    just_there = (place, Place(place.segment, place.offset + 1))
    return lose(connection, output, just_there, LossReason.SPOOL_MISSING, at_ns)[0]


def _adopt(
    connection: sqlite3.Connection,
    output: str,
    place: Place,
    header: SpoolHeader,
    *,
    in_flight: dict[str, tuple[InflightPart, ...]],
    taken_back: Collection[str],
    kin: Kinship,
) -> None:
    """Commit a spooled block at last. Blocks in flight that lie before it in a file were done before it; but not those
    that were taken back after a spool had lost them: they may have been cut after it.

    One that is not in flight moves a position only if it goes on from there, since blocks before it may have been
    forgotten together with their rows. Only what moves a position is the spool's to keep, and what was taken back: what
    else the position had passed was delivered once, or its row would be there, and what lies behind it is read from the
    file. If the spool loses those, nothing is lost.

    Another agent gave the ids of files to other files, so a foreign block moves nothing, unless it is in flight here.
    """
    files = {range_.file for part in header.parts for range_ in part.ranges}
    before = positions.of_files(connection, output, files)
    begins = {range_.file: range_.start for part in reversed(header.parts) for range_ in reversed(part.ranges)}
    own = in_flight.get(header.id, ()) if header.id in taken_back else ()
    back = {range_ for part in own for range_ in part.ranges}
    ids = [
        id_
        for id_, parts in in_flight.items()
        if id_ == header.id or (kin is not Kinship.FOREIGN and id_ not in taken_back and _before(parts, begins))
    ]
    acked = [(output, [range_ for part in in_flight.pop(id_) for range_ in part.ranges]) for id_ in ids]
    positions.advance(connection, positions.reached_in(acked))
    inflight.end(connection, ids)
    if kin is not Kinship.FOREIGN:
        positions.adopt(connection, output, header.parts)
    after = positions.of_files(connection, output, files)
    kept = tuple(
        part._replace(ranges=tuple(one for one in part.ranges if one in back or _moved_over(one, before, after)))
        for part in header.parts
    )
    id_ = header.id if header.indexes is None else None
    connection.execute(_HOLD, (output, *place, pack_parts(kept), id_, header.observed_ns))


def _moved_over(range_: Range, before: Mapping[int, int], after: Mapping[int, int]) -> bool:
    """Whether a position came past a range just now. Of a file that nobody knows there may be nothing but the spool."""
    return range_.file not in before or before[range_.file] < range_.end <= after[range_.file]


def load(connection: sqlite3.Connection) -> list[tuple[str, Place, tuple[InflightPart, ...]]]:
    """Every block that a spool should hold: its output, its place, what it covers."""
    rows = connection.execute("SELECT output, segment, offset, parts FROM spooled").fetchall()
    return [(output, Place(segment, offset), parts_in(packed)) for output, segment, offset, packed in rows]


def _whole(block: Block) -> str | None:
    """A block's id, if its parts are all that it stands for: else what is cut from them would not be the same."""
    return block.id if block.indexes is None else None


def _places(connection: sqlite3.Connection, output: str, start: Place, stop: Place) -> set[Place]:
    rows = connection.execute(
        "SELECT segment, offset FROM spooled WHERE output = ? AND (segment, offset) >= (?, ?)"
        " AND (segment, offset) < (?, ?)",
        (output, *start, *stop),
    ).fetchall()
    return {Place(*row) for row in rows}


def _rows(
    connection: sqlite3.Connection, output: str, start: Place, stop: Place
) -> dict[Place, tuple[str | None, bytes]]:
    rows = connection.execute(
        "SELECT segment, offset, id, parts FROM spooled WHERE output = ? AND (segment, offset) >= (?, ?)"
        " AND (segment, offset) < (?, ?)",
        (output, *start, *stop),
    ).fetchall()
    return {Place(segment, offset): (id_, packed) for segment, offset, id_, packed in rows}


def _is_of(row: tuple[str | None, bytes], header: SpoolHeader) -> bool:
    """Whether the block there is the one that the row is about, or has at least all that the row has."""
    id_, packed = row
    if id_ is not None and id_ == header.id:
        return True
    held = {range_ for part in header.parts for range_ in part.ranges}
    return all(range_ in held for part in parts_in(packed) for range_ in part.ranges)


def _before(parts: Sequence[InflightPart], begins: Mapping[int, int]) -> bool:
    """Whether a block lies before another one, which begins there in its files, in a file they share."""
    return any(range_.end <= begins.get(range_.file, 0) for part in parts for range_ in part.ranges)
