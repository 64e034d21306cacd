"""The table `divided`: deliveries that a backend found too large, so that their halves were sent instead.

After a crash the same halves have to come again, even if the backend would take the whole by then: it may have stored
the first of them. Statements only, run by Checkpoint inside its transactions.
"""

from __future__ import annotations

import sqlite3

_ADD = "INSERT OR IGNORE INTO divided (id, block, output) VALUES (?, ?, ?)"
# A block that was divided before it was spooled has no id in `spooled`: while there is one, an output's rows stay.
# Each table is gone through once, however many rows there are here: a spool may hold a million blocks.
_FORGET = """
DELETE FROM divided WHERE block NOT IN (SELECT id FROM inflight)
  AND block NOT IN (SELECT id FROM reclaims)
  AND block NOT IN (SELECT id FROM spooled WHERE id IS NOT NULL)
  AND output NOT IN (SELECT output FROM spooled WHERE id IS NULL)
"""


def add(connection: sqlite3.Connection, delivery: str, block: str, output: str) -> None:
    """One more, by its id; `block` is what it is all or a piece of."""
    connection.execute(_ADD, (delivery, block, output))


def load(connection: sqlite3.Connection) -> set[str]:
    """The ids of all of them."""
    return {id_ for (id_,) in connection.execute("SELECT id FROM divided").fetchall()}


def forget(connection: sqlite3.Connection) -> int:
    """Forget those of blocks that are done with; returns how many."""
    return connection.execute(_FORGET).rowcount
