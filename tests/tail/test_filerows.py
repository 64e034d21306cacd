"""The checkpoint is told of files in its own time, and never of one that is over before it was told."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from hostagent.clock import Clock
from hostagent.model import FileId, Target
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.filerows import FileRows
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.ports import Chain
from hostagent.tail.tailer import TailedFile

NO_CHAIN = cast("Chain", None)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    checkpoint = Checkpoint.open(tmp_path, Clock())
    yield checkpoint
    checkpoint.close()


@pytest.fixture
def rows(checkpoint: Checkpoint) -> FileRows:
    return FileRows(checkpoint, KnownRows(), Clock())


def new_file(path: str, inode: int) -> TailedFile:
    target = Target(id="app", source="app", paths=("/logs/*.log",))
    origin = Origin(target, NO_CHAIN, (), {}, Policy("beginning", None, 0.2, drop_page_cache=False))
    return TailedFile(path, FileId(1, inode, 1), origin, seen_ns=1)


def test_a_new_file_is_known_by_its_row_once_it_has_one(rows: FileRows, checkpoint: Checkpoint) -> None:
    tailed = new_file("/logs/a.log", 1)
    rows.add(tailed)
    assert rows.by_id == {}
    assert rows.register()
    assert rows.by_id == {tailed.row: tailed}
    assert [row.path for row in checkpoint.files()] == ["/logs/a.log"]


def test_a_file_that_is_over_before_it_has_a_row_gets_none(rows: FileRows, checkpoint: Checkpoint) -> None:
    over, other = new_file("/logs/over.log", 1), new_file("/logs/other.log", 2)
    rows.add(over)
    rows.add(other)
    rows.close(over)
    assert rows.register()
    assert list(rows.by_id.values()) == [other]
    assert [row.path for row in checkpoint.files()] == ["/logs/other.log"]


def test_a_change_is_written_when_its_time_has_come(rows: FileRows, checkpoint: Checkpoint) -> None:
    tailed = new_file("/logs/a.log", 1)
    rows.add(tailed)
    rows.register()
    now_s = Clock().monotonic_s()
    tailed.path = "/logs/a.log.1"
    rows.note_change(tailed)
    rows.save(now_s)
    assert [row.path for row in checkpoint.files()] == ["/logs/a.log"]
    rows.save(now_s + rows.due_s(now_s))
    assert [row.path for row in checkpoint.files()] == ["/logs/a.log.1"]
    assert rows.due_s(now_s) == float("inf")


def test_what_is_known_of_a_file_is_made_durable_when_it_loses_its_place(checkpoint: Checkpoint) -> None:
    """A power cut may set the checkpoint back, which costs nothing as long as the file can be read again."""
    asked: list[str] = []
    registry = Registry(OpenFiles({}, 10), checkpoint, KnownRows(), Clock())
    tailed = new_file("/logs/a.log", 1)
    registry.rows.add(tailed)
    registry.rows.register()
    checkpoint.on_urgent = lambda: asked.append("at once")
    registry.lose(tailed)
    assert asked == ["at once"]
    registry.retire(tailed)  # its last blocks were acked meanwhile
    assert asked == ["at once", "at once"]


def test_how_a_file_begins_is_on_record_before_it_is_read(
    rows: FileRows, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "a.log"
    path.touch()
    tailed = new_file(str(path), 1)
    tailed.content = FileContent(os.open(path, os.O_RDONLY))
    rows.add(tailed)
    rows.register()
    rows.note_beginning(tailed)
    assert [row.fingerprint.length for row in checkpoint.files()] == [0]
    path.write_bytes(b"one\n")
    rows.note_beginning(tailed)
    assert [row.fingerprint.length for row in checkpoint.files()] == [4]
    tailed.close()
