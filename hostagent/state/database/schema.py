"""The tables of the checkpoint database, and the way from an older version to this one.

Written with sqlite-utils, which costs the agent 15 MB when imported: so it is imported only by this module run as a
program, in a child process that ends before the agent starts. A new database comes from `schema.sql` beside this
file, which is what the migrations below make, word for word (a test compares them):
`python -m hostagent.state.database.schema --sql > hostagent/state/database/schema.sql`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.errors import StateError

if TYPE_CHECKING:
    from sqlite_utils import Database

SQL_FILE = Path(__file__).with_name("schema.sql")
UPGRADE_TIMEOUT_S = 300


def _first(db: Database) -> None:
    db.table("meta").create({"key": str, "value": str}, pk="key")
    db.table("files").create(
        {
            "id": int,
            "device": int,
            "inode": int,
            "birth_ns": int,
            "generation": int,
            "fingerprint_length": int,
            "fingerprint": bytes,
            "path": bytes,  # file names are bytes; not all of them are UTF-8
            "target": bytes,  # may hold file names
            "source": str,
            "tags": str,
            "storage": str,
            "seen_ns": int,
            "gone_ns": int,
        },
        pk="id",
    )
    db.table("positions").create(
        {
            "file": int,
            "output": str,
            "offset": int,
            "anchor": bytes,
            "skipped": int,
            "acked": int,
            "wanted": int,
        },
        pk=("file", "output"),
    )
    db.table("inflight").create({"seq": int, "id": str, "output": str, "observed_ns": int, "parts": bytes}, pk="seq")
    db.table("inflight").create_index(["id"], unique=True)
    db.table("losses").create(
        {
            "seq": int,
            "source": str,
            "path": bytes,
            "file": int,
            "start": int,
            "end": int,  # -1: nobody knows
            "reason": str,
            "output": str,
            "at_ns": int,
        },
        pk="seq",
    )
    # A repair that is killed half-way and done again must not count its losses twice.
    db.table("losses").create_index(["file", "start", "end", "output", "reason", "path", "source"], unique=True)
    db.table("loss_totals").create(
        {"source": str, "output": str, "reason": str, "losses": int, "bytes": int, "unknown": int},
        pk=("source", "output", "reason"),
    )
    db.table("totals").create(
        {
            "source": str,
            "output": str,
            "files": int,
            "written": int,
            "skipped": int,
            "acked": int,
            "lost": int,
            "lost_unsized": int,
            "unaccounted": int,
        },
        pk=("source", "output"),
    )


def _second(db: Database) -> None:
    db.table("spooled").create(
        {"output": str, "segment": int, "offset": int, "parts": bytes}, pk=("output", "segment", "offset")
    )


def _third(db: Database) -> None:
    # What it takes to cut a spooled block again; rows of version 2 have neither, and their blocks can't be.
    db.table("spooled").add_column("id", str)
    db.table("spooled").add_column("observed_ns", int)
    db.table("reclaims").create(
        {"seq": int, "id": str, "output": str, "observed_ns": int, "parts": bytes, "reason": str}, pk="seq"
    )


def _fourth(db: Database) -> None:
    # Up to where in each segment of a spool every block has had its row, whether it still has it or not.
    db.table("segments").create({"output": str, "segment": int, "end": int}, pk=("output", "segment"))


def _fifth(db: Database) -> None:
    # What a backend found too large: by its own id, and by that of the block that it is all or a piece of.
    db.table("divided").create({"id": str, "block": str, "output": str}, pk="id")


def _sixth(db: Database) -> None:
    # An output that is down leaves what its spool has lost where it is, and another one's is looked for behind that.
    db.table("reclaims").create_index(["output"])


# Migration i makes version i + 1. A released migration is never changed; add one.
MIGRATIONS: tuple[Callable[[Database], None], ...] = (_first, _second, _third, _fourth, _fifth, _sixth)
VERSION = len(MIGRATIONS)


def create(connection: sqlite3.Connection, *, epoch: str, first_file: int) -> None:
    """Make all tables in an empty database, all of them or none."""
    connection.executescript(
        f"BEGIN;\n{SQL_FILE.read_text()}\n"
        f"INSERT INTO meta VALUES ('epoch', '{epoch}'), ('next_file', '{first_file}'), ('version', '{VERSION}');\n"
        f"PRAGMA user_version = {VERSION};\nCOMMIT;"
    )


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version a database says it has; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def damage_of(connection: sqlite3.Connection) -> str:
    """What is wrong with the tables of a database that SQLite itself finds sound; empty when nothing is."""
    version = version_of(connection)
    if version == 0:
        count = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return "it has tables and no version" if count else ""
    # Said twice, since one flipped bit must not pass for a newer agent's database.
    told = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if told is None or told[0] != str(version):
        return "its two notes of its version differ"
    if version == VERSION:
        fresh = sqlite3.connect(":memory:")
        try:
            create(fresh, epoch="", first_file=0)
            if _shape(connection) != _shape(fresh):
                return "its tables are not as they should be"
        finally:
            fresh.close()
    return ""


def _shape(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Every column and index of every table."""
    columns = connection.execute(
        "SELECT tables.name, columns.name, columns.type, columns.pk"
        " FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'"
    )
    indexes = connection.execute(
        "SELECT tables.name, indexes.name, indexes.[unique], parts.seqno, parts.name FROM sqlite_master AS tables,"
        " pragma_index_list(tables.name) AS indexes, pragma_index_info(indexes.name) AS parts"
        " WHERE tables.type = 'table'"
    )
    return sorted([*columns.fetchall(), *indexes.fetchall()], key=repr)


def upgrade(path: Path) -> None:
    """Bring an older database to this version, in a child process."""
    run = subprocess.run(  # noqa: S603 - our own module and a path, no shell
        # -P: the working directory, which may be anybody's, is no place to import from.
        [sys.executable, "-P", "-m", "hostagent.state.database.schema", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=UPGRADE_TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    if run.returncode != 0:
        raise StateError(f"{path}: can't bring the database to version {VERSION}: {run.stderr.strip()[-500:]}")


def migrate(db: Database) -> None:
    """Apply what is missing. Works on a copy that only takes the database's place when all of it went well."""
    for number in range(version_of(db.conn), VERSION):
        MIGRATIONS[number](db)
        db.conn.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (str(number + 1),))
        db.conn.commit()
        db.conn.execute(f"PRAGMA user_version = {number + 1}")


def main(arguments: list[str]) -> int:
    """`PATH` migrates that database; `--sql` prints the statements that make a new one."""
    from sqlite_utils import Database  # noqa: PLC0415 - 15 MB that only this process pays

    if arguments == ["--sql"]:
        db = Database(memory=True)
        migrate(db)
        sys.stdout.write(db.schema + "\n")
        return 0
    migrate(Database(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
