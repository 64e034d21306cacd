"""Everything the checkpoint database says about what became of which bytes, read at one moment for the audit.

One read transaction on a connection that can't write: a running agent is not held up and not waited for. It draws no
conclusions; `reckoning` does the sum.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple

from hostagent.model import Loss
from hostagent.state.database import files, ledger, listing, positions, totals
from hostagent.state.database.connections import DATABASE, connect_read_only
from hostagent.state.database.ledger import LossTotal
from hostagent.state.database.packed import parts_in
from hostagent.state.database.positions import Progress
from hostagent.state.database.totals import Forgotten
from hostagent.state.faults import sqlite_fault
from hostagent.state.rows import FileRow, InflightPart
from hostagent.state.spool.spooled import Place

_ALL = -1
_BEGUN = "SELECT output, parts FROM inflight UNION ALL SELECT output, parts FROM reclaims"


class Begun(NamedTuple):
    """A range of a block that was cut and not acked, or that its spool has lost and the reader is to take back."""

    output: str
    file: int
    start: int
    end: int


class Held(NamedTuple):
    """A block that a spool should hold at this place."""

    output: str
    place: Place
    parts: tuple[InflightPart, ...]


class Books(NamedTuple):
    """The database at one moment."""

    files: list[FileRow]
    progress: list[Progress]
    inflight: list[Begun]
    spooled: list[Held]
    losses: list[Loss]
    loss_totals: list[LossTotal]
    forgotten: list[Forgotten]


def read_books(data_dir: Path) -> Books:
    """Read all of it; StateError says why it can't be read."""
    try:
        with contextlib.closing(connect_read_only(data_dir)) as connection:
            connection.execute("BEGIN")
            return Books(
                files=files.load(connection),
                progress=positions.load(connection),
                inflight=_inflight(connection),
                spooled=[Held(*row) for row in listing.load(connection)],
                losses=ledger.select(connection, limit=_ALL),
                loss_totals=ledger.totals(connection),
                forgotten=totals.load(connection),
            )
    except sqlite3.Error as error:
        raise sqlite_fault(data_dir / DATABASE, "read it", error) from error


def _inflight(connection: sqlite3.Connection) -> list[Begun]:
    return [
        Begun(output, range_.file, range_.start, range_.end)
        for output, packed in connection.execute(_BEGUN).fetchall()
        for part in parts_in(packed)
        for range_ in part.ranges
    ]
