"""The checkpoint database in use: one connection behind one lock, and what is done when the disk refuses.

Everything the agent asks of the database or writes into it passes through here, in a transaction each. A write that
fails changes nothing and is the caller's to repeat; the next one tries the disk again with a fresh connection. It knows
of no table but the row by which it proves that a disk works again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.database.connections import BUSY_TIMEOUT_S, DATABASE, connect
from hostagent.state.database.recovery import SUBJECT, open_database, write_backup
from hostagent.state.durable import sync_file
from hostagent.state.faults import is_damage, sqlite_fault

T = TypeVar("T")

BACKUP_INTERVAL_S = 60.0
"""A database that is damaged costs what was delivered since the backup: it comes again. So the copy is made often."""
BACKUP_REST = 1000
"""For so many times as long as a backup takes none is made: a big database must not cost more than that share."""
RETRY_PATIENCE_S = 0.1
"""How long to wait for another process's lock when it was there the last time, too: the others who need the connection,
`status` among them, must not wait in a queue of waits. Whoever wants to write tries again by itself."""

_PROBE = "INSERT OR REPLACE INTO meta VALUES ('probed', hex(randomblob(8)))"


class LiveDatabase:
    """The one writer of the checkpoint database. Thread-safe; `read`, `write` and `back_up` may raise StateError."""

    def __init__(self, data_dir: Path, clock: Clock) -> None:
        """Heal, upgrade or make the database of a directory that is already locked, and open it."""
        self._data_dir = data_dir
        self._path = data_dir / DATABASE
        self._clock = clock
        opened = open_database(data_dir, clock)
        self.epoch = opened.epoch
        self.first_file = opened.next_file
        self.commits = 0
        self.commit_failures = 0
        self.damaged = False
        self.lock = threading.RLock()
        """Whoever keeps in memory what a write has changed holds it around both."""
        self._connection = opened.connection
        self._connected = True
        self._inode = os.stat(self._path).st_ino
        self._start_notices = opened.notices
        self._fault: StateError | None = None
        self._changes = 0
        self._synced_changes = 0
        self._backed_up_changes = 0
        self._backup_due_s = clock.monotonic_s() + BACKUP_INTERVAL_S

    @property
    def healthy(self) -> bool:
        """False from a failed write until the next one that works."""
        return self._fault is None

    def notices(self) -> list[Notice]:
        """What happened at start, and what is the matter now."""
        fault = self._fault
        now = [Notice(SUBJECT, str(fault), "positions are kept in memory until it works again")] if fault else []
        return [*self._start_notices, *now]

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which changes nothing."""
        with self.lock:
            try:
                if not self._connected:
                    self._reconnect()
                return work(self._connection)
            except sqlite3.Error as error:
                self.damaged = self.damaged or is_damage(error)
                raise sqlite_fault(self._path, "read it", error) from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction, all of it or nothing."""
        with self.lock:
            try:
                result = self._transact(work)
            except sqlite3.Error as error:
                self.damaged = self.damaged or is_damage(error)
                self._fault = sqlite_fault(self._path, "write it", error)
                self.commit_failures += 1
                raise self._fault from error
            if self._fault is not None:
                self._fault = None
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
            self._changes += 1
            self.commits += 1
            return result

    def tidy(self, work: Callable[[sqlite3.Connection], int]) -> None:
        """Like `write`, for upkeep that returns how many rows it changed: if none, there is nothing to back up."""
        with self.lock:
            changes = self._changes
            self._changes = changes + (self.write(work) > 0)

    def look(self) -> None:
        """Call often: notices a database that was removed or replaced, which writes to its open file never would."""
        if self._replaced():
            with self.lock:
                self._fault = self._fault or self._gone()

    def sync(self) -> None:
        """Call often: a power cut takes the database back to the last time. SQLite syncs once in a thousand pages.

        One that fails is no fault: what can't be written is told by SQLite itself, when it has to write it.
        """
        changes = self._changes
        if changes != self._synced_changes:
            with contextlib.suppress(OSError):
                sync_file(self._path.with_name(self._path.name + "-wal"))
                self._synced_changes = changes

    def back_up(self) -> None:
        """Call now and then, from any thread: makes a backup when it is time and something has changed."""
        with self.lock:
            changes = self._changes
            due = self._clock.monotonic_s() >= self._backup_due_s and changes != self._backed_up_changes
        if due:
            began_s = self._clock.monotonic_s()
            write_backup(self._data_dir)
            self._backed_up_changes = changes
            now_s = self._clock.monotonic_s()
            self._backup_due_s = now_s + max(BACKUP_INTERVAL_S, BACKUP_REST * (now_s - began_s))

    def close(self) -> None:
        """Give it back."""
        with self.lock:
            self._connection.close()

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
        return result

    def _reconnect(self) -> None:
        """A connection whose disk failed may keep a stale view of the write-ahead log: begin with a fresh one."""
        if self._replaced():
            raise self._gone()
        self._connection.close()
        self._connected = False
        self._connection = connect(self._path, patience_s=RETRY_PATIENCE_S)
        self._connected = True

    def _replaced(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:  # the disk does not answer: nothing is known, and a write will tell more
            return False

    def _gone(self) -> StateError:
        self.damaged = True
        return StateError(f"{self._path}: it was removed or replaced while the agent runs: restart the agent")
