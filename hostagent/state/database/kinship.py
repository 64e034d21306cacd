"""Whether the database and the directory of a spool belong together, or one of them was put back from a copy.

Numbers of segments come again in another past, so what a mark says is done says nothing about the blocks that a
database of another past lists at those places. Every run that uses a spool names itself in both: the newest name that
the database has must be among those that the directory has lived through. Statements only, run by Checkpoint inside its
transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from enum import Enum

from hostagent.state.spool.spooled import Place

_RUN_KEY = "spool run "
_LAST_LISTED = 'SELECT segment, "end" FROM segments WHERE output = ? ORDER BY segment DESC LIMIT 1'
_LAST_HELD = "SELECT segment, offset FROM spooled WHERE output = ? ORDER BY segment DESC, offset DESC LIMIT 1"


class Kinship(Enum):
    """How far what a spool's directory says can be held against what the database says."""

    SAME = "same"
    """The database has seen this directory as it was, now or earlier."""
    IN_DOUBT = "in doubt"
    """The mark is lost, or the directory is older than the database: what is done is not known."""
    FOREIGN = "foreign"
    """The directory is that of another past, or of another agent."""


def judge(connection: sqlite3.Connection, output: str, runs: Sequence[str], known: Place) -> Kinship:
    """What a directory is that has lived through these runs and knows of places up to there."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_RUN_KEY + output,)).fetchone()
    last = row[0] if row is not None else ""
    if not runs:  # an older agent writes none, neither here nor there
        return Kinship.IN_DOUBT if last else Kinship.SAME
    if last not in runs:
        return Kinship.FOREIGN
    listed = [connection.execute(statement, (output,)).fetchone() for statement in (_LAST_LISTED, _LAST_HELD)]
    ahead = any(place is not None and Place(*place) > known for place in listed)
    return Kinship.IN_DOUBT if ahead else Kinship.SAME


def note_run(connection: sqlite3.Connection, output: str, run: str) -> None:
    """From now on the database knows the directory as this run leaves it."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_RUN_KEY + output, run))
