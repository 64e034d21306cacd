"""The loss ledger: every byte range that was written and will never be delivered, with its reason.

Statements on the checkpoint's connection; Checkpoint calls them inside its own transactions, the command line on a
connection that can only read. A loss is written down before the bytes are given up. It is recorded once however often a
repair that was killed half-way reports it again. Old lines are folded away, totals stay exact.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

import msgspec

from hostagent.model import Loss

UNKNOWN = -1


class LossReason(StrEnum):
    """Why bytes will not be delivered."""

    COPYTRUNCATE = "copytruncate"  # written between logrotate's copy and its truncate; nobody can know how much
    TRUNCATED = "truncated"  # the file was truncated before it was read to its end
    DELETED = "deleted"  # the file was deleted and no descriptor was left to read it
    UNSEEN = "unseen"  # the file came and went before it could be opened
    DELETED_OVER_BUDGET = "deleted_over_budget"  # deleted, and no room to hold on to it
    COPY_DAMAGED = "copy_damaged"  # the compressed file it went on in ends in the middle
    CHANGED = "changed"  # the content before the position was overwritten
    SPOOL_DROPPED = "spool_dropped"  # when_full: drop_oldest
    SPOOL_DAMAGED = "spool_damaged"
    SPOOL_MISSING = "spool_missing"  # a spool segment is gone
    DEAD_LETTER_DROPPED = "dead_letter_dropped"  # no room for more dead letters
    DEAD_LETTER_DAMAGED = "dead_letter_damaged"
    DEAD_LETTER_MISSING = "dead_letter_missing"


# Damage found in what was written down before the position was committed.
_READ_AGAIN = frozenset({LossReason.SPOOL_DAMAGED, LossReason.SPOOL_MISSING, LossReason.DEAD_LETTER_DAMAGED})


class LossTotal(NamedTuple):
    """All losses of one source to one output for one reason since the ledger began."""

    source: str
    output: str
    reason: str
    losses: int
    bytes: int
    unknown: int  # how many of the losses have no known size


def add(connection: sqlite3.Connection, losses: Iterable[Loss]) -> int:
    """Record losses that are not recorded yet; returns how many were new."""
    new = 0
    for loss in losses:
        path = loss.path or _path_of(connection, loss.file)
        end = UNKNOWN if loss.end is None else loss.end
        changed = connection.execute(
            "INSERT OR IGNORE INTO losses (source, path, file, start, end, reason, output, at_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (loss.source, os.fsencode(path), loss.file, loss.start, end, str(loss.reason), loss.output, loss.at_ns),
        ).rowcount
        if changed == 1:
            new += 1
            connection.execute(
                "INSERT INTO loss_totals VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT (source, output, reason) DO UPDATE SET"
                " losses = losses + 1, bytes = bytes + excluded.bytes, unknown = unknown + excluded.unknown",
                (
                    loss.source,
                    loss.output,
                    str(loss.reason),
                    0 if loss.end is None else loss.end - loss.start,
                    int(loss.end is None),
                ),
            )
    return new


def add_done(connection: sqlite3.Connection, losses: Iterable[Loss]) -> int:
    """The same, but what was damaged in the spool only as far as the output's position says its bytes were done.

    What lies behind the position is still in its file and will be read again.
    """
    return add(connection, _below_positions(connection, losses))


def select(connection: sqlite3.Connection, source: str | None = None, limit: int = 1000) -> list[Loss]:
    """The newest `limit` losses, oldest first."""
    where, values = ("WHERE source = ?", (source,)) if source is not None else ("", ())
    rows = connection.execute(
        f"SELECT source, path, file, start, end, reason, at_ns, output FROM losses {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - a constant
        (*values, limit),
    ).fetchall()
    return [
        Loss(row[0], os.fsdecode(row[1]), row[2], row[3], None if row[4] == UNKNOWN else row[4], *row[5:])
        for row in reversed(rows)
    ]


def totals(connection: sqlite3.Connection) -> list[LossTotal]:
    """Per source, output and reason, folded lines included."""
    return [
        LossTotal(*row)
        for row in connection.execute("SELECT * FROM loss_totals ORDER BY source, output, reason").fetchall()
    ]


def fold(connection: sqlite3.Connection, keep: int) -> int:
    """Forget all but the newest `keep` lines; the totals keep counting them."""
    return connection.execute(
        "DELETE FROM losses WHERE seq <= (SELECT seq FROM losses ORDER BY seq DESC LIMIT 1 OFFSET ?)", (keep,)
    ).rowcount


def _below_positions(connection: sqlite3.Connection, losses: Iterable[Loss]) -> Iterator[Loss]:
    for loss in losses:
        if loss.end is None or loss.reason not in _READ_AGAIN:
            yield loss
            continue
        found = connection.execute(
            "SELECT offset FROM positions WHERE file = ? AND output = ?", (loss.file, loss.output)
        ).fetchone()
        # A file that is forgotten was done with long ago: all of it counts.
        end = loss.end if found is None else min(loss.end, found[0])
        if end > loss.start:
            yield msgspec.structs.replace(loss, end=end)


def _path_of(connection: sqlite3.Connection, file: int) -> str:
    found = connection.execute("SELECT path FROM files WHERE id = ?", (file,)).fetchone()
    return os.fsdecode(found[0]) if found else ""
