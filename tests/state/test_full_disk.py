"""A disk that is full, read-only or locked: an error that says what to do, nothing lost, and on when it works again."""

import contextlib
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.dead_letters import DeadLetters
from hostagent.state.spool.spool import Spool
from tests.state.unreachable import database_out_of_reach
from tests.state.values import HandClock, Losses, block, delivery, file_row, offsets, part, spool_config
from tests.support.directories import ext4_disk, fill_up, small_disk

MIB = 1024 * 1024


@pytest.fixture(name="small_disk")
def small_disk_mounted(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as disk:
        yield disk


@pytest.fixture
def small_ext4(tmp_path: Path) -> Iterator[Path]:
    """One that can be remounted read-only."""
    with ext4_disk(tmp_path / "image", tmp_path / "ext4"):
        yield tmp_path / "ext4"


@pytest.mark.requires(root=True, tools=["mount"])
def test_what_is_kept_of_damaged_files_leaves_most_of_a_small_disk_free(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    for _ in range(20):
        Checkpoint.open(data_dir, HandClock()).close()
        (data_dir / "checkpoint.db").write_bytes(b"no database any more".ljust(MIB // 2))
    checkpoint = Checkpoint.open(data_dir, HandClock())
    kept = [path.stat().st_size for path in (data_dir / "quarantine").iterdir()]
    assert MIB // 2 <= sum(kept) <= MIB
    checkpoint.add_files([file_row()])
    checkpoint.close()


@pytest.mark.requires(root=True, tools=["mount"])
def test_the_checkpoint_waits_out_a_full_disk(small_disk: Path) -> None:
    checkpoint = Checkpoint.open(small_disk / "data", HandClock())
    (file,) = checkpoint.add_files([file_row()])
    filler = fill_up(small_disk)
    number, error = 0, ""
    while not error:
        try:
            checkpoint.commit([block(f"b{number}", part(file, number, number + 1))], [])
            number += 1
        except StateError as full:
            error = str(full)
    assert "full" in error
    assert "free some space" in error
    assert not _healthy(checkpoint)
    assert checkpoint.notices() != []
    with pytest.raises(StateError):
        checkpoint.maintain()
    assert [one.id for one in checkpoint.inflight("main")] == [f"b{one}" for one in range(number)]
    with pytest.raises(StateError):
        checkpoint.commit([block("late", part(file, 0, 1))], [])
    filler.unlink()
    checkpoint.maintain()
    assert _healthy(checkpoint)
    assert checkpoint.notices() == []
    checkpoint.commit([], [block(f"b{number}", part(file, number, number + 1))])
    assert offsets(checkpoint) == {(file, "main"): number + 1}
    checkpoint.close()


def test_a_database_that_could_not_be_opened_again_is_read_as_soon_as_it_can(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([block("b", part(file, 0, 1))], [])
    with database_out_of_reach(checkpoint), pytest.raises(StateError, match="unable to open"):
        checkpoint.inflight("main")
    assert [one.id for one in checkpoint.inflight("main")] == ["b"]
    assert not _healthy(checkpoint), "only a write shows that"
    checkpoint.commit([], [block("b", part(file, 0, 1))])
    assert _healthy(checkpoint)
    checkpoint.close()


@pytest.mark.requires(root=True, tools=["mount"])
def test_the_spool_waits_out_a_full_disk(small_disk: Path) -> None:
    losses = Losses()
    spool = Spool.open(small_disk, "main", spool_config(), HandClock(), losses)
    taken = []

    def put(number: int) -> None:
        name = f"b{number}"
        if not spool.append(block(name, part(1, number, number + 1)), delivery(name, bytes(300_000))):
            raise StateError("no room")
        spool.sync()
        taken.append(name)

    put(0)
    filler = fill_up(small_disk)
    with pytest.raises(StateError):
        put(1)
    filler.unlink()
    put(2)
    number = 3
    with contextlib.suppress(StateError):
        for number in range(3, 100):
            put(number)
    assert number < 99
    names = []
    while head := spool.head():
        names.append(head.id)
        spool.advance()
    assert names == taken
    put(200)
    spool.close()
    spool = Spool.open(small_disk, "main", spool_config(), HandClock(), losses)
    head = spool.head()
    assert head is not None
    assert head.id == "b200"
    spool.close()
    assert losses == []


def test_a_write_that_fits_only_partly_leaves_no_trace(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), Losses())
    _append_and_sync(spool, "b0", b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        for _ in range(2):
            with pytest.raises(StateError, match="File too large"):
                _append_and_sync(spool, "b1", os.urandom(MIB))
        _append_and_sync(spool, "b2", b"small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _append_and_sync(spool, "b3", os.urandom(MIB))
    assert [header.id for header in spool.contents()] == ["b0", "b2", "b3"]
    spool.close()
    losses = Losses()
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), losses)
    assert [header.id for header in spool.contents()] == ["b0", "b2", "b3"]
    assert spool.notices() == []
    spool.close()


@pytest.mark.requires(root=True, tools=["mount", "mkfs.ext4"])
def test_a_filesystem_that_turns_read_only_and_back(small_ext4: Path) -> None:
    clock = HandClock()
    checkpoint = Checkpoint.open(small_ext4, clock)
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.close()
    _remount(small_ext4, "ro")
    with pytest.raises(StateError, match=r"Read-only.*remount"):
        Checkpoint.open(small_ext4, clock)
    spool = Spool.open(small_ext4, "main", spool_config(), clock, Losses())
    with pytest.raises(StateError, match="remount"):
        spool.append(block("b", part(file, 0, 1)), delivery("b"))
    letters = DeadLetters(small_ext4, clock, Losses().add_losses)
    letters.bound("main", 1 << 20)
    with pytest.raises(StateError, match="remount"):
        letters.put(output="main", delivery=delivery("b"), letters=[(b"x", "y")])
    _remount(small_ext4, "rw")
    checkpoint = Checkpoint.open(small_ext4, clock)
    checkpoint.commit([], [block("b", part(file, 0, 5))])
    assert offsets(checkpoint) == {(file, "main"): 5}
    checkpoint.close()


def test_a_database_locked_by_somebody_else(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    shell = sqlite3.connect(tmp_path / "checkpoint.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    sent = block("b1", part(file, 0, 10))
    with pytest.raises(StateError, match=r"locked.*sqlite3 shell"):
        checkpoint.commit([], [sent])
    assert not _healthy(checkpoint)
    assert not checkpoint.damaged
    shell.execute("ROLLBACK")
    checkpoint.commit([], [sent])
    assert _healthy(checkpoint)
    assert offsets(checkpoint) == {(file, "main"): 10}
    shell.close()
    checkpoint.close()


def test_a_database_that_was_removed_under_the_agent_is_noticed(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    checkpoint.add_files([file_row()])
    (tmp_path / "checkpoint.db").unlink()
    with pytest.raises(StateError, match=r"removed.*restart the agent"):
        checkpoint.maintain()
    assert checkpoint.damaged
    with pytest.raises(StateError, match="restart the agent"):
        checkpoint.add_files([file_row(inode=2)])
    checkpoint.close()


def test_a_database_that_breaks_in_use_asks_for_a_restart(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    checkpoint.add_files([file_row(path="/var/log/" + "x" * 200, inode=inode) for inode in range(5000)])
    checkpoint.close()
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    path = tmp_path / "checkpoint.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StateError, match="restart the agent"):
        checkpoint.update_files([file_row(id=one) for one in range(5000)])
    assert checkpoint.damaged
    checkpoint.close()
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert _healthy(checkpoint)
    checkpoint.close()


def test_a_data_dir_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="can't make the directory"):
        Checkpoint.open(tmp_path / "file" / "data", HandClock())


def _append_and_sync(spool: Spool, name: str, body: bytes) -> None:
    assert spool.append(block(name, part(1, 0, 1)), delivery(name, body))
    spool.sync()


def _healthy(checkpoint: Checkpoint) -> bool:
    return checkpoint.healthy


def _remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(path)], check=True)
