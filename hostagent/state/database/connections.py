"""Connections to the checkpoint database: the one that writes, and those of commands that only look.

A command may come beside a running agent, without one, as another user or on a disk that takes no writes; it must leave
nothing behind. What state the database is in is `recovery`'s business, what is in it the other modules'.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from hostagent.errors import StateError
from hostagent.state.database import schema
from hostagent.state.faults import look_fault, sqlite_fault

DATABASE = "checkpoint.db"
BUSY_TIMEOUT_S = 2.0
# SQLITE_READONLY and SQLITE_CANTOPEN: its log has to be replayed before it can be read.
_NEEDS_TO_WRITE = frozenset({8, 14})


def connect(path: Path, *, patience_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection for the one writer, which waits so long for others' locks."""
    connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
    connection.text_factory = _decode_text
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -1024")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _decode_text(text: bytes) -> str:
    """A flipped bit in one text must not keep all others from being read."""
    return text.decode("utf-8", "replace")


def connect_read_only(data_dir: Path) -> sqlite3.Connection:
    """A connection that can't write, for a command beside a running agent or without one; it leaves no file behind."""
    path = data_dir / DATABASE
    if not exists(path):
        raise StateError(f"{path} is not there: no agent has run with this data_dir, or it was removed")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    wal, shared = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if not shared.exists() and not exists(wal):
        uri += "&immutable=1"  # nobody uses it: SQLite would make both files, as whoever runs the command
    try:
        with path.open("rb"):
            pass
        return _checked_version(_connect_to_look(uri), path)
    except OSError as error:
        raise look_fault(path, error) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NEEDS_TO_WRITE:
            raise sqlite_fault(path, "read it", error) from error
    return _checked_version(_copied(path), path)


def _connect_to_look(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.text_factory = _decode_text
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _copied(path: Path) -> sqlite3.Connection:
    """A database whose log must be replayed on a disk that takes no writes: replayed in a copy, then held in memory."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    memory.text_factory = _decode_text
    try:
        with tempfile.TemporaryDirectory() as folder:
            for part in with_companions(path)[:2]:
                if part.exists():
                    shutil.copyfile(part, Path(folder) / part.name)
            with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as copy:
                copy.backup(memory)
    except sqlite3.Error as error:
        memory.close()
        raise sqlite_fault(path, "read a copy of it", error) from error
    except OSError as error:
        memory.close()
        raise look_fault(path, error) from error
    return memory


def _checked_version(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        version = schema.version_of(connection)
    except sqlite3.Error as error:
        connection.close()
        raise sqlite_fault(path, "read it", error) from error
    if version != schema.VERSION:
        connection.close()
        hint = "start the agent of this version once, it brings it up to date" if version < schema.VERSION else ""
        hint = hint or "use the hostagent that made it"
        raise StateError(f"{path} has tables of version {version}, this hostagent knows {schema.VERSION}: {hint}")
    return connection


def exists(path: Path) -> bool:
    """Whether there is anything in a file; an empty database is none."""
    if not os.path.lexists(path):
        return False
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        raise StateError(f"{path} is a symbolic link that leads nowhere: mend it or remove it") from None


def with_companions(path: Path) -> list[Path]:
    """A database and the files that SQLite may keep beside it."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
