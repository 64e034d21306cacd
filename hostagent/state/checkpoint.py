"""The checkpoint: what has been delivered, what is on its way, and what was lost, in one SQLite database.

Tail asks it at start where to go on, deliver tells it about blocks begun and acknowledged; both share one connection
behind one lock. A position is committed after its bytes were acknowledged or fsynced into the spool, never before. When
the disk refuses, nothing held in memory is given up: the caller repeats the same call until it succeeds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import Block, Loss
from hostagent.state.database import files, ledger, positions, totals, transit
from hostagent.state.database.ledger import LossReason, LossTotal
from hostagent.state.database.recovery import BUSY_TIMEOUT_S, DATABASE, SUBJECT, connect, open_database, write_backup
from hostagent.state.database.transit import Reclaim, SpoolChange
from hostagent.state.faults import is_damage, sqlite_fault
from hostagent.state.lock import DirectoryLock
from hostagent.state.rows import FileRow, InflightBlock, Position
from hostagent.state.spool.spooled import Place, SpoolHeader

__all__ = ["Checkpoint", "FileRow", "InflightBlock", "LossTotal", "Position", "Reclaim", "SpoolChange"]

T = TypeVar("T")

BACKUP_INTERVAL_S = 60.0
"""A database that is damaged costs what was delivered since the backup: it comes again. So the copy is made often."""
BACKUP_REST = 1000
"""For so many times as long as a backup takes none is made: a big database must not cost more than that share."""
LOSSES_KEPT = 100_000
RETRY_PATIENCE_S = 0.1
"""How long to wait for another process's lock when it was there the last time, too: the others who need the connection,
`status` among them, must not wait in a queue of waits. Whoever wants to write tries again by itself."""

_PROBE = "INSERT OR REPLACE INTO meta VALUES ('probed', hex(randomblob(8)))"
# Damage found in what was written down before the position was committed.
_READ_AGAIN = frozenset({LossReason.SPOOL_DAMAGED, LossReason.SPOOL_MISSING, LossReason.DEAD_LETTER_DAMAGED})


class Checkpoint:
    """The one writer of the checkpoint database. Thread-safe; every method that touches it may raise StateError."""

    def __init__(self, data_dir: Path, clock: Clock, lock: DirectoryLock) -> None:
        """Open the database of a directory that is already locked; use `open`."""
        self.data_dir = data_dir
        self._path = data_dir / DATABASE
        self._clock = clock
        self._directory_lock = lock
        self._lock = threading.Lock()
        opened = open_database(data_dir, clock)
        self._connection = opened.connection
        self._start_notices = opened.notices
        self._fault: StateError | None = None
        self._damaged = False
        self.commits = 0
        self.commit_failures = 0
        self._changes = 0
        self._backed_up_changes = 0
        self._backup_due_s = clock.monotonic_s() + BACKUP_INTERVAL_S
        self._inode = os.stat(self._path).st_ino
        self.epoch = opened.epoch
        self._next_file = opened.next_file
        self._reclaiming = self._read(transit.reclaiming)

    @classmethod
    def open(cls, data_dir: Path, clock: Clock) -> Checkpoint:
        """Lock the data directory, heal or make its database; StateError when that can't be done now."""
        try:
            data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"data_dir {data_dir}: can't make the directory ({error.strerror}): make it, or name another"
            ) from error
        lock = DirectoryLock.acquire(data_dir)
        try:
            return cls(data_dir, clock, lock)
        except BaseException:
            lock.close()
            raise

    @property
    def healthy(self) -> bool:
        """False from a failed write until the next one that works."""
        return self._fault is None

    @property
    def damaged(self) -> bool:
        """The database broke or was taken away while in use; only a restart of the agent heals that."""
        return self._damaged

    def notices(self) -> list[Notice]:
        """What happened at start, and what is the matter now."""
        fault = self._fault
        now = [Notice(SUBJECT, str(fault), "positions are kept in memory until it works again")] if fault else []
        return [*self._start_notices, *now]

    def files(self) -> list[FileRow]:
        """Every file generation with its positions, by id. The rows share equal strings and tags."""
        return self._read(files.load)

    def add_files(self, rows: Sequence[FileRow]) -> list[int]:
        """Store new file generations with their positions; returns their ids, in order."""
        if not rows:
            return []
        with self._lock:
            first = self._next_file
            ids = list(range(first, first + len(rows)))
            self._write(lambda connection: files.insert(connection, ids, rows))
            self._next_file = first + len(rows)
        return ids

    def update_files(self, rows: Iterable[FileRow]) -> None:
        """Store what is known about files now; positions are left alone."""
        values = list(rows)
        with self._lock:
            self._write(lambda connection: files.update(connection, values))

    def commit(self, begun: Sequence[Block], acked: Sequence[Block], spool: SpoolChange | None = None) -> None:
        """One transaction: blocks about to be sent become in-flight, acknowledged ones move positions and are gone.

        Acked is also what a spool has made durable; `spool` then says where it is.
        """
        reached = positions.reached_by(acked)
        ids = [block.id for block in acked]

        def work(connection: sqlite3.Connection) -> None:
            if begun:
                transit.begin(connection, begun)
            if ids:
                positions.advance(connection, reached)
                transit.end(connection, ids)
            if spool is not None:
                transit.change(connection, spool)

        with self._lock:
            self._write(work)

    def inflight(self, output: str) -> list[InflightBlock]:
        """Blocks of an output that were begun and never acknowledged, in the order they were cut."""
        return self._read(lambda connection: transit.load(connection, output))

    def drop_inflight(self, output: str) -> None:
        """Forget the blocks of an output in flight: what they cover is read as if it had never been read.

        What lies before the output's position, because a spool had it once, is to be reclaimed.
        """
        with self._lock:
            self._reclaiming = self._write(lambda connection: transit.drop(connection, output))

    def narrow_inflight(self, blocks: Iterable[InflightBlock], losses: Sequence[Loss]) -> None:
        """Take out of blocks what can't be cut again, before the rest is sent under their ids.

        Such a part keeps its number of records and has no ranges, or a file that comes back would be taken for sent.
        A block without any ranges is forgotten. What of the losses lies behind the positions is none: it is read anew.
        """
        values = list(blocks)

        def work(connection: sqlite3.Connection) -> None:
            transit.replace(connection, values)
            ledger.add(connection, _below_positions(connection, losses))

        with self._lock:
            self._write(work)

    @property
    def reclaiming(self) -> Collection[str]:
        """The outputs whose spools have lost blocks that are not taken back yet; asks no disk."""
        return self._reclaiming

    def reclaims(self, output: str, limit: int) -> list[Reclaim]:
        """The oldest blocks that an output's spool has lost, to be cut again from their files."""
        return self._read(lambda connection: transit.reclaims(connection, output, limit))

    def end_reclaim(self, reclaim: Reclaim, losses: Sequence[Loss]) -> None:
        """What could be cut of such a block is in flight now; the rest goes into the ledger."""

        def work(connection: sqlite3.Connection) -> set[str]:
            transit.end_reclaim(connection, reclaim)
            ledger.add(connection, _below_positions(connection, losses))
            return transit.reclaiming(connection)

        with self._lock:
            self._reclaiming = self._write(work)

    def set_positions(self, starts: Iterable[positions.Start], dropped: Iterable[tuple[int, str]] = ()) -> None:
        """Put (file, output, offset, anchor) as given, forward or back; `dropped` (file, output) get no more."""
        values, gone = list(starts), list(dropped)

        def work(connection: sqlite3.Connection) -> None:
            positions.put(connection, values)
            positions.release(connection, gone)

        with self._lock:
            self._write(work)

    def reconcile_spool(self, output: str, held: Iterable[tuple[Place, SpoolHeader]], done: Place) -> list[Place]:
        """At start: what a spool holds need not be read again; what it should hold and does not is to be reclaimed.

        `held` are the blocks that wait in it, in order; all before `done` was drained. Returns where one is missing.
        """

        def work(connection: sqlite3.Connection) -> list[Place]:
            lost, places = transit.reconcile(connection, output, held, done, self._clock.wall_ns())
            ledger.add(connection, _below_positions(connection, lost))
            return places

        return self._take_from_spool(work)

    def lose_spooled(self, output: str, where: tuple[Place, Place], reason: LossReason) -> list[Place]:
        """A spool has lost the blocks between two places, or drops them; returns the places that were known.

        What it drops goes into the ledger, the rest is to be reclaimed.
        """

        def work(connection: sqlite3.Connection) -> list[Place]:
            lost, places = transit.lose(connection, output, where, reason, self._clock.wall_ns())
            ledger.add(connection, _below_positions(connection, lost))
            return places

        return self._take_from_spool(work)

    def add_losses(self, losses: Sequence[Loss]) -> None:
        """Write losses into the ledger; an empty path is looked up by the file's id.

        What was damaged in the spool is lost only as far as the output's position says its bytes were done: what lies
        behind the position is still in its file and will be read again.
        """
        with self._lock:
            self._write(lambda connection: ledger.add(connection, _below_positions(connection, losses)))

    def losses(self, source: str | None = None, limit: int = 1000) -> list[Loss]:
        """The newest losses, oldest first."""
        return self._read(lambda connection: ledger.select(connection, source, limit))

    def loss_totals(self) -> list[LossTotal]:
        """Losses per source, output and reason."""
        return self._read(ledger.totals)

    def forget_files(self, older_than_ns: int) -> int:
        """Forget files that are gone since before then and that no in-flight block names; returns how many.

        Their bytes stay in the totals.
        """

        def work(connection: sqlite3.Connection) -> int:
            gone = {
                row[0]
                for row in connection.execute("SELECT id FROM files WHERE gone_ns < ?", (older_than_ns,)).fetchall()
            }
            if gone:
                gone -= transit.files_named(connection)
            totals.forget(connection, gone)
            return len(gone)

        with self._lock:
            return self._write(work)

    def look(self) -> None:
        """Call often: notices a database that was removed or replaced, which writes to its open file never would."""
        if self._replaced():
            with self._lock:
                self._fault = self._fault or self._gone()

    def maintain(self) -> None:
        """Call now and then, from any thread: tries a failed disk again, keeps the ledger short, makes a backup."""
        self.look()
        with self._lock:
            changes = self._changes
            folded = self._write(lambda connection: ledger.fold(connection, LOSSES_KEPT))
            self._changes = changes + (folded > 0)
            due = self._clock.monotonic_s() >= self._backup_due_s and self._changes != self._backed_up_changes
        if due:
            began_s = self._clock.monotonic_s()
            write_backup(self.data_dir)
            self._backed_up_changes = changes
            now_s = self._clock.monotonic_s()
            self._backup_due_s = now_s + max(BACKUP_INTERVAL_S, BACKUP_REST * (now_s - began_s))

    def close(self) -> None:
        """Close the database and let another agent have the directory."""
        with self._lock:
            self._connection.close()
        self._directory_lock.close()

    def _take_from_spool(self, work: Callable[[sqlite3.Connection], list[Place]]) -> list[Place]:
        def both(connection: sqlite3.Connection) -> tuple[list[Place], set[str]]:
            return work(connection), transit.reclaiming(connection)

        with self._lock:
            places, self._reclaiming = self._write(both)
        return places

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                self._damaged = self._damaged or is_damage(error)
                raise sqlite_fault(self._path, "read it", error) from error

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction; the caller holds the lock."""
        try:
            if self._fault is not None:
                self._reconnect()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self._fault is not None:
                    connection.execute(_PROBE)  # or work that changes nothing would pass for a disk that works
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self._damaged = self._damaged or is_damage(error)
            self._fault = sqlite_fault(self._path, "write it", error)
            self.commit_failures += 1
            raise self._fault from error
        if self._fault is not None:
            self._fault = None
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
        self._changes += 1
        self.commits += 1
        return result

    def _reconnect(self) -> None:
        """A connection whose disk failed may keep a stale view of the write-ahead log: begin with a fresh one."""
        if self._replaced():
            raise self._gone()
        self._connection.close()
        self._connection = connect(self._path, patience_s=RETRY_PATIENCE_S)

    def _replaced(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:  # the disk does not answer: nothing is known, and a write will tell more
            return False

    def _gone(self) -> StateError:
        self._damaged = True
        return StateError(f"{self._path}: it was removed or replaced while the agent runs: restart the agent")


def _below_positions(connection: sqlite3.Connection, losses: Sequence[Loss]) -> list[Loss]:
    kept = []
    for loss in losses:
        if loss.end is None or loss.reason not in _READ_AGAIN:
            kept.append(loss)
            continue
        found = connection.execute(
            "SELECT offset FROM positions WHERE file = ? AND output = ?", (loss.file, loss.output)
        ).fetchone()
        # A file that is forgotten was done with long ago: all of it counts.
        end = loss.end if found is None else min(loss.end, found[0])
        if end > loss.start:
            kept.append(msgspec.structs.replace(loss, end=end))
    return kept
