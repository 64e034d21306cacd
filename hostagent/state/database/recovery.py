"""Opens the checkpoint database whatever state it is in: sound, new, older, damaged or gone.

A damaged database is moved to quarantine and the backup takes its place; without a sound backup a new one does. Both
mean a new epoch, since ids of blocks that the lost rows described must not be taken for ids of today's. It never
judges content (anchors and fingerprints do that when files are read), and never deletes what it did not make.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from pathlib import Path
from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.database import schema
from hostagent.state.database.connections import BUSY_TIMEOUT_S, DATABASE, connect, exists, with_companions
from hostagent.state.durable import sync_directory, sync_file
from hostagent.state.faults import is_damage, os_fault, sqlite_fault
from hostagent.state.quarantine import Quarantine

BACKUP = "checkpoint.db.backup"
SUBJECT = "checkpoint"
_HEADER_BYTES = 100
_SQLITE_ERROR = 1
_ID_JUMP = 1 << 32
_FORGOTTEN_IDS = 1 << 48
"""Where ids begin when all that was given are forgotten: at random, below what a JSON number holds exactly, and with
room for millions of jumps."""
_CHANCE = random.SystemRandom()
# Above this, check the structure only: index against table takes seconds per 100 MB.
FULL_CHECK_BYTES = 32 * 1024 * 1024


class Opened(NamedTuple):
    """A database ready for use, and what an operator should know about how it got there."""

    connection: sqlite3.Connection
    notices: list[Notice]
    epoch: str
    next_file: int


def open_database(data_dir: Path, clock: Clock) -> Opened:
    """Open, heal, upgrade or make the database of a data directory that this process has locked."""
    path = data_dir / DATABASE
    backup = data_dir / BACKUP
    notices: list[Notice] = []
    try:
        if not exists(path):
            if exists(backup):
                notices.append(_notice("it was gone", _restore(data_dir, clock)))
        elif damage := _damage_of(path):
            kept = _set_aside(path, Quarantine(data_dir, clock))
            notices.append(_notice(f"it was damaged ({damage}) and is now {kept}", _restore(data_dir, clock)))
        used = _used_before(data_dir)
        first_file = _FORGOTTEN_IDS + _CHANCE.randrange(_FORGOTTEN_IDS) if used else 1
        connection = _ready(path, first_file)
        meta = None if notices else _meta_of(connection)
        if meta is None:
            _begin_epoch(connection, first_file)
            meta = _meta_of(connection)
            assert meta is not None
        epoch, next_file = meta
    except sqlite3.Error as error:
        raise sqlite_fault(path, "open it", error) from error
    except OSError as error:
        raise os_fault(path, "open it", error) from error
    # A power cut sets the database back by seconds: ids that it has forgotten may stand in the spool and in block ids.
    # They lie somewhere behind the next one. Time would not tell where, for it may be set back, too.
    return Opened(connection, notices, epoch, next_file + (_CHANCE.randrange(_ID_JUMP) if used else 0))


def write_backup(data_dir: Path) -> None:
    """Copy the live database beside itself, through a second connection that only reads, and make it the backup."""
    path = data_dir / DATABASE
    fresh = data_dir / (BACKUP + ".new")
    try:
        _copy(path, fresh)
        if damage := _damage_of(fresh):
            raise StateError(f"{path}: its copy is damaged ({damage}), the older backup stays; restart the agent")
        _replace_durably(fresh, data_dir / BACKUP)
    except sqlite3.Error as error:
        raise sqlite_fault(path, "back it up", error) from error
    except OSError as error:
        raise os_fault(path, "back it up", error) from error
    finally:
        for leftover in with_companions(fresh):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _damage_of(path: Path) -> str:
    """What is wrong with a database's structure; empty when nothing is. Errors that are no damage are raised."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not set(header[18:20]) <= {1, 2}:  # SQLite would call a file of a later format read-only
        return "its header is not SQLite's"
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            check = "integrity_check" if path.stat().st_size <= FULL_CHECK_BYTES else "quick_check"
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(1)")]
            return schema.damage_of(connection) if found == ["ok"] else "; ".join(found)
    except UnicodeDecodeError:
        return "its table names are no text"
    except sqlite3.Error as error:
        # With a sound file none of these statements is wrong, and no text undecodable.
        if is_damage(error) or getattr(error, "sqlite_errorcode", _SQLITE_ERROR) == _SQLITE_ERROR:
            return str(error)
        raise


def _ready(path: Path, first_file: int) -> sqlite3.Connection:
    """A connection to a database of this version."""
    connection = connect(path)
    try:
        version = schema.version_of(connection)
        if version == 0:
            schema.create(connection, epoch=os.urandom(8).hex(), first_file=first_file)
        elif version > schema.VERSION:
            raise StateError(
                f"{path} was made by a newer hostagent (tables of version {version}, this one knows {schema.VERSION}): "
                "install that one again, or move the file away to begin anew"
            )
        elif version < schema.VERSION:
            connection.close()
            upgrade_in_place(path)
            connection = connect(path)
        return connection
    except BaseException:
        connection.close()
        raise


def upgrade_in_place(path: Path) -> None:
    """Migrate a copy and put it in place: a kill half-way leaves the old database as it was."""
    fresh = path.with_name(path.name + ".upgrade")
    for leftover in with_companions(fresh):
        leftover.unlink(missing_ok=True)
    _copy(path, fresh)
    schema.upgrade(fresh)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _replace_durably(fresh, path)


def _restore(data_dir: Path, clock: Clock) -> str:
    """Put the backup in the database's place; says what happened."""
    backup = data_dir / BACKUP
    if not exists(backup):
        return "no backup was there, so a new one was begun: files are read as if seen for the first time"
    if damage := _damage_of(backup):
        kept = _set_aside(backup, Quarantine(data_dir, clock))
        return f"the backup was damaged too ({damage}) and is now {kept}, so a new one was begun"
    fresh = data_dir / (DATABASE + ".restored")
    for leftover in with_companions(fresh):
        leftover.unlink(missing_ok=True)
    _copy(backup, fresh)
    _replace_durably(fresh, data_dir / DATABASE)
    return "the backup took its place: what was delivered since the backup was made comes again"


def _notice(what: str, then: str) -> Notice:
    return Notice(
        SUBJECT, f"{DATABASE}: {what}; {then}", "check the disk's health; the file in quarantine may be removed"
    )


def _meta_of(connection: sqlite3.Connection) -> tuple[str, int] | None:
    """The epoch and the next file's id, None when they make no sense."""
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    highest = connection.execute("SELECT max(id) FROM files").fetchone()[0] or 0
    epoch, next_file = meta.get("epoch"), meta.get("next_file")
    if not isinstance(epoch, str) or not epoch or not isinstance(next_file, str) or not next_file.isdecimal():
        return None
    return epoch, max(int(next_file), highest + 1)


def _begin_epoch(connection: sqlite3.Connection, first_file: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES ('epoch', ?), ('next_file', ?)", (os.urandom(8).hex(), str(first_file))
    )


def _used_before(data_dir: Path) -> bool:
    """Whether files may have been given ids here by whatever is forgotten now."""
    return any(exists(data_dir / name) for name in (DATABASE, BACKUP, "spool", "dead-letters", "quarantine"))


def _set_aside(path: Path, quarantine: Quarantine) -> Path:
    moved = [quarantine.move(part) for part in with_companions(path) if os.path.lexists(part)]
    return moved[0]


def _copy(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    with (
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
        ) as source,
        contextlib.closing(sqlite3.connect(to, isolation_level=None)) as target,
    ):
        source.backup(target)


def _replace_durably(fresh: Path, path: Path) -> None:
    sync_file(fresh)
    for companion in with_companions(path)[1:]:
        companion.unlink(missing_ok=True)
    fresh.replace(path)
    sync_directory(path.parent)
