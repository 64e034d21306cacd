"""The table `files`: one row per file generation, with its outputs' positions beside it.

Statements only, run by Checkpoint inside its transactions. Names of files are bytes here and surrogate-escaped text
above; tags are JSON in ASCII, which can spell such text too; numbers that the kernel calls unsigned are stored in
SQLite's signed integers.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from hostagent.model import FileId, Fingerprint, Scalar
from hostagent.state.database import positions
from hostagent.state.rows import FileRow, Position

_INSERT = "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = (
    "UPDATE files SET device = ?2, inode = ?3, birth_ns = ?4, generation = ?5, fingerprint_length = ?6,"
    " fingerprint = ?7, path = ?8, target = ?9, source = ?10, tags = ?11, storage = ?12, seen_ns = ?13, gone_ns = ?14"
    " WHERE id = ?1"
)
_TYPES = (int, int, int, int, int, int, bytes, bytes, bytes, str, str, str, int)
_WRAP = 1 << 64


def insert(connection: sqlite3.Connection, ids: Sequence[int], rows: Sequence[FileRow]) -> None:
    """Add files with their positions under the ids given."""
    connection.executemany(_INSERT, [_values(id_, row) for id_, row in zip(ids, rows, strict=True)])
    for id_, row in zip(ids, rows, strict=True):
        positions.begin(connection, id_, row.positions)
    # Ids are never used twice, not even after the row with the highest one is forgotten.
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('next_file', ?)", (str(ids[-1] + 1),))


def update(connection: sqlite3.Connection, rows: Sequence[FileRow]) -> None:
    """Overwrite what is known about each file; its positions stay."""
    connection.executemany(_UPDATE, [_values(row.id, row) for row in rows])


def one(connection: sqlite3.Connection, id_: int) -> FileRow | None:
    """A single file with its positions."""
    return next(iter(_load(connection, "= ?", (id_,))), None)


def load(connection: sqlite3.Connection) -> list[FileRow]:
    """All files with their positions, by id; equal strings and tags are one object.

    A row that makes no sense is left out: its file is then met as a new one.
    """
    return _load(connection, "IS NOT NULL", ())


def _load(connection: sqlite3.Connection, which: str, values: tuple[int, ...]) -> list[FileRow]:
    shared: dict[str, str] = {}
    tags: dict[str, Mapping[str, Scalar]] = {}
    stands: dict[int, dict[str, Position]] = {}
    places = f"SELECT file, output, offset, anchor FROM positions WHERE file {which}"  # noqa: S608 - a constant
    for file, output, offset, anchor in connection.execute(places, values):
        if isinstance(output, str) and isinstance(offset, int) and offset >= 0 and isinstance(anchor, bytes):
            stands.setdefault(file, {})[shared.setdefault(output, output)] = Position(offset, anchor)
    rows = []
    for row in connection.execute(f"SELECT * FROM files WHERE id {which} ORDER BY id", values):  # noqa: S608
        if tuple(map(type, row[:13])) != _TYPES or not isinstance(row[13], int | None):
            continue
        try:
            if row[10] not in tags:
                tags[row[10]] = dict(json.loads(row[10]))
        except ValueError:
            tags[row[10]] = {}
        rows.append(_row(row, shared, tags[row[10]], stands.pop(row[0], {})))
    return rows


def gone_before(connection: sqlite3.Connection, wall_ns: int) -> set[int]:
    """The ids of files that were gone then."""
    return {row[0] for row in connection.execute("SELECT id FROM files WHERE gone_ns < ?", (wall_ns,)).fetchall()}


def _row(
    row: tuple[Any, ...], shared: dict[str, str], tags: Mapping[str, Scalar], stands: Mapping[str, Position]
) -> FileRow:
    target = os.fsdecode(row[8])
    return FileRow(
        id=row[0],
        identity=FileId(_unsigned(row[1]), _unsigned(row[2]), row[3]),
        generation=row[4],
        fingerprint=Fingerprint(row[5], row[6]),
        path=os.fsdecode(row[7]),
        target=shared.setdefault(target, target),
        source=shared.setdefault(row[9], row[9]),
        tags=tags,
        storage=shared.setdefault(row[11], row[11]),
        seen_ns=row[12],
        gone_ns=row[13],
        positions=stands,
    )


def _signed(number: int) -> int:
    return number - _WRAP if number >= _WRAP >> 1 else number


def _unsigned(number: int) -> int:
    return number + _WRAP if number < 0 else number


def _values(id_: int, row: FileRow) -> tuple[object, ...]:
    return (
        id_,
        _signed(row.identity.device),
        _signed(row.identity.inode),
        row.identity.birth_ns,
        row.generation,
        row.fingerprint.length,
        row.fingerprint.digest,
        os.fsencode(row.path),
        os.fsencode(row.target),
        row.source,
        json.dumps(dict(row.tags), sort_keys=True),
        row.storage,
        row.seen_ns,
        row.gone_ns,
    )
