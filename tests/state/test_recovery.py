"""The checkpoint always opens: damage costs at most what came after the last backup, and is said."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.errors import StateError
from hostagent.model import Loss
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database import schema
from hostagent.state.database.live import BACKUP_INTERVAL_S
from hostagent.state.database.recovery import upgrade_in_place
from tests.state.values import ANCHOR, HandClock, block, file_row, offsets, part


def begin(data_dir: Path, *, backup: bool) -> str:
    """A database with one file at 100, optionally backed up there, then moved on to 200; returns its epoch."""
    clock = HandClock()
    checkpoint = Checkpoint.open(data_dir, clock)
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.set_positions([(file, "main", 100, ANCHOR)])
    if backup:
        clock.now_s += BACKUP_INTERVAL_S
        checkpoint.maintain()
    checkpoint.set_positions([(file, "main", 200, ANCHOR)])
    checkpoint.commit([block("b1", part(file, 200, 300))], [])
    checkpoint.close()
    return checkpoint.epoch


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for offset in range(100, len(data), 50):
        data[offset] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_damaged_database_is_replaced_by_its_backup(tmp_path: Path) -> None:
    epoch = begin(tmp_path, backup=True)
    damage(tmp_path / "checkpoint.db")
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert offsets(checkpoint) == {(1, "main"): 100}
    assert checkpoint.epoch != epoch
    (notice,) = checkpoint.notices()
    assert "damaged" in notice.message
    assert "backup" in notice.message
    assert any(name.endswith("-checkpoint.db") for name in os.listdir(tmp_path / "quarantine"))
    assert checkpoint.add_files([file_row(inode=2)])[0] > 1_000_000, "clear of ids that later blocks may have named"
    checkpoint.close()
    again = Checkpoint.open(tmp_path, HandClock())
    assert again.epoch == checkpoint.epoch
    assert again.notices() == []
    again.close()


def test_without_a_backup_a_new_database_is_begun(tmp_path: Path) -> None:
    epoch = begin(tmp_path, backup=False)
    damage(tmp_path / "checkpoint.db")
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert checkpoint.files() == []
    assert checkpoint.epoch != epoch
    assert "no backup" in checkpoint.notices()[0].message
    checkpoint.close()


def test_a_damaged_backup_is_set_aside_too(tmp_path: Path) -> None:
    begin(tmp_path, backup=True)
    damage(tmp_path / "checkpoint.db")
    damage(tmp_path / "checkpoint.db.backup")
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert checkpoint.files() == []
    assert len(os.listdir(tmp_path / "quarantine")) == 2
    checkpoint.close()


@pytest.mark.parametrize("content", [None, b"", b"not a database at all" * 100])
def test_a_database_that_is_gone_or_something_else(tmp_path: Path, content: bytes | None) -> None:
    begin(tmp_path, backup=True)
    path = tmp_path / "checkpoint.db"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert offsets(checkpoint) == {(1, "main"): 100}
    assert len(checkpoint.notices()) == 1
    checkpoint.close()


def test_missing_tables_are_damage(tmp_path: Path) -> None:
    begin(tmp_path, backup=True)
    with sqlite3.connect(tmp_path / "checkpoint.db") as connection:
        connection.execute("DROP TABLE positions")
    connection.close()
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert offsets(checkpoint) == {(1, "main"): 100}
    checkpoint.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=5),
    length=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_no_bit_flip_or_truncation_stops_a_start(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]], length: float
) -> None:
    data_dir = tmp_path_factory.mktemp("damaged")
    begin(data_dir, backup=True)
    path = data_dir / "checkpoint.db"
    content = bytearray(path.read_bytes())
    for place, mask in flips:
        content[int(place * (len(content) - 1))] ^= mask
    path.write_bytes(bytes(content[: int(length * len(content))]))
    checkpoint = Checkpoint.open(data_dir, HandClock())
    checkpoint.add_losses([Loss("s", "/p", 1, 0, 1, "deleted", 0)])
    assert len(checkpoint.losses()) >= 1
    checkpoint.files()
    checkpoint.drop_inflight("main")
    assert checkpoint.inflight("main") == []
    (file,) = checkpoint.add_files([file_row(inode=99)])
    checkpoint.commit([], [block("b9", part(file, 0, 9))])
    assert offsets(checkpoint)[file, "main"] == 9
    checkpoint.maintain()
    checkpoint.close()
    shutil.rmtree(data_dir)


def test_a_damaged_copy_never_becomes_the_backup(tmp_path: Path) -> None:
    begin(tmp_path, backup=True)
    before = (tmp_path / "checkpoint.db.backup").read_bytes()
    clock = HandClock()
    checkpoint = Checkpoint.open(tmp_path, clock)
    path = tmp_path / "checkpoint.db"
    page = 4096
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xff" * (path.stat().st_size - page))
    clock.now_s += BACKUP_INTERVAL_S
    with pytest.raises(StateError):
        checkpoint.maintain()
    assert (tmp_path / "checkpoint.db.backup").read_bytes() == before
    assert "checkpoint.db.backup.new" not in os.listdir(tmp_path)


def test_the_backup_follows_only_when_something_changed(tmp_path: Path) -> None:
    clock = HandClock()
    checkpoint = Checkpoint.open(tmp_path, clock)
    checkpoint.add_files([file_row()])
    checkpoint.maintain()
    assert not (tmp_path / "checkpoint.db.backup").exists(), "not due yet"
    clock.now_s += BACKUP_INTERVAL_S
    checkpoint.maintain()
    first = os.stat(tmp_path / "checkpoint.db.backup").st_ino
    clock.now_s += BACKUP_INTERVAL_S
    checkpoint.maintain()
    assert os.stat(tmp_path / "checkpoint.db.backup").st_ino == first, "an idle agent writes nothing"
    checkpoint.add_files([file_row(inode=2)])
    clock.now_s += BACKUP_INTERVAL_S
    checkpoint.maintain()
    assert os.stat(tmp_path / "checkpoint.db.backup").st_ino != first
    checkpoint.close()


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    begin(tmp_path, backup=False)
    connection = sqlite3.connect(tmp_path / "checkpoint.db")
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (schema.VERSION + 1,))
    connection.commit()
    connection.close()
    before = (tmp_path / "checkpoint.db").read_bytes()
    with pytest.raises(StateError, match="newer hostagent"):
        Checkpoint.open(tmp_path, HandClock())
    assert (tmp_path / "checkpoint.db").read_bytes() == before


def test_the_packaged_statements_are_what_the_migrations_make() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hostagent.state.database.schema", "--sql"], capture_output=True, text=True, check=True
    )
    assert run.stdout == schema.SQL_FILE.read_text(), "print it again: python -m hostagent.state.database.schema --sql"


def test_migrations_bring_an_empty_database_to_this_version(tmp_path: Path) -> None:
    schema.upgrade(tmp_path / "old.db")
    connection = sqlite3.connect(tmp_path / "old.db")
    assert schema.version_of(connection) == schema.VERSION
    assert schema.damage_of(connection) == ""
    connection.close()


def test_an_upgrade_keeps_what_is_in_the_database(tmp_path: Path) -> None:
    epoch = begin(tmp_path, backup=False)
    upgrade_in_place(tmp_path / "checkpoint.db")
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert checkpoint.epoch == epoch
    assert offsets(checkpoint) == {(1, "main"): 200}
    assert checkpoint.notices() == []
    assert [name for name in os.listdir(tmp_path) if "upgrade" in name] == []
    checkpoint.close()


def test_a_migration_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="unable to open"):
        schema.upgrade(tmp_path / "no such folder" / "old.db")


def test_the_agent_does_not_pay_for_sqlite_utils(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hostagent.clock import Clock\n"
        "from hostagent.state.checkpoint import Checkpoint\n"
        f"Checkpoint.open(Path({str(tmp_path)!r}), Clock()).close()\n"
        "print([name for name in sys.modules if 'sqlite_utils' in name])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_another_agent_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    with pytest.raises(StateError, match=f"pid {os.getpid()}"):
        Checkpoint.open(tmp_path, HandClock())
    checkpoint.close()
    Checkpoint.open(tmp_path, HandClock()).close()


def test_a_lock_left_by_a_dead_agent_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12345\n")
    Checkpoint.open(tmp_path, HandClock()).close()


def test_the_quarantine_is_bounded(tmp_path: Path) -> None:
    from hostagent.state.quarantine import Quarantine

    quarantine = Quarantine(tmp_path, HandClock(), max_bytes=250)
    for number in range(5):
        source = tmp_path / f"f{number}"
        source.write_bytes(bytes(100))
        quarantine.move(source)
        os.utime(tmp_path)
    names = sorted(name.rsplit("-", 1)[-1] for name in os.listdir(tmp_path / "quarantine"))
    assert names == ["f3", "f4"]


def test_ids_that_a_power_cut_has_made_it_forget_are_not_given_again(tmp_path: Path) -> None:
    """Whatever the clock says: a machine without one of its own may wake up in the past."""
    begin(tmp_path, backup=False)
    given: set[int] = set()
    for number in range(20):
        again = tmp_path.with_name(f"set back {number}")
        shutil.copytree(tmp_path, again)
        checkpoint = Checkpoint.open(again, HandClock())
        ids = checkpoint.add_files([file_row(inode=2), file_row(inode=3)])
        assert not given & set(ids)
        assert ids[0] > max(row.id for row in checkpoint.files() if row.id not in ids)
        given.update(ids)
        checkpoint.close()
