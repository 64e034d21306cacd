"""The checkpoint is broken, locked, read-only, on a full disk or taken away: it shows, and no line is lost by it."""

import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append, numbered
from tests.support.directories import fill_up, small_disk
from tests.support.waiting import wait_for

MIB = 1 << 20


def data_dir(scene: Scene) -> Path:
    return Path(scene.agent.config["data_dir"])


def unwell(scene: Scene) -> bool:
    status, text = scene.agent.get("/healthz")
    return status == 503 and "checkpoint" in text


def well(scene: Scene) -> bool:
    return scene.agent.get("/healthz")[0] == 200


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(20_000))


def _text(path: Path) -> None:
    path.write_text("this is no database, somebody edited it\n" * 100)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    rng = random.Random(2)
    content = bytearray(path.read_bytes())
    for _ in range(200):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _bad_log(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(random.Random(3).randbytes(50_000))


def _other_tables(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE files (surprise TEXT)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def _gone(path: Path) -> None:
    for one in path.parent.glob("checkpoint*"):
        one.unlink()


@pytest.mark.parametrize("harm", [_garbage, _text, _half, _empty, _flip, _bad_log, _other_tables, _gone])
def test_the_agent_starts_whatever_its_database_looks_like(scene: Scene, harm: Callable[[Path], None]) -> None:
    lines = numbered("a", range(50))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    assert scene.agent.stop() == 0
    harm(data_dir(scene) / "checkpoint.db")
    append(scene.logs / "a.log", "after")
    scene.start()
    scene.wait(lambda: "after" in scene.messages(), "the new line")
    assert set(scene.messages()) == {*lines, "after"}
    if len(scene.messages()) > len(lines) + 1 and harm is not _gone and harm is not _empty:
        assert "checkpoint" in scene.notices(), "lines came again and nobody was told why"
    scene.restart()
    before = len(scene.messages())
    append(scene.logs / "a.log", "at last")
    scene.wait(lambda: "at last" in scene.messages(), "the last line")
    assert len(scene.messages()) == before + 1


def test_a_locked_database_is_waited_for(scene: Scene) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    shell = sqlite3.connect(data_dir(scene) / "checkpoint.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    append(scene.logs / "a.log", "two")
    append(scene.logs / "new.log", "three")
    scene.wait(lambda: unwell(scene), "health to say so")
    scene.wait(lambda: "locked" in str(scene.notices().get("checkpoint")), "status to say why")
    shell.execute("COMMIT")
    shell.close()
    scene.expect("one", "two", "three")
    scene.wait(lambda: well(scene), "health to be good again")
    assert "checkpoint" not in scene.notices()


def test_a_database_that_is_locked_at_start(scene: Scene) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    assert scene.agent.stop() == 0
    shell = sqlite3.connect(data_dir(scene) / "checkpoint.db", isolation_level=None)
    shell.execute("BEGIN EXCLUSIVE")
    append(scene.logs / "a.log", "two")
    # It may end with an error (the service manager starts it again) or wait; it must not begin a new database.
    scene.agent.start()
    try:
        wait_for(lambda: not scene.agent.running or unwell_at_start(scene), "an end, or bad health")
    finally:
        shell.execute("ROLLBACK")
        shell.close()
    if not scene.agent.running:
        scene.start()
    scene.expect("one", "two")
    scene.wait(lambda: well(scene), "health to be good again")


@pytest.fixture(name="small_disk")
def state_on_a_small_disk(scene: Scene) -> Iterator[Path]:
    directory = data_dir(scene)
    with small_disk(directory):
        yield directory
        scene.close()


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_disk_that_fills_up_while_running_is_waited_for(scene: Scene, small_disk: Path) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    filler = fill_up(small_disk)
    written: list[str] = []

    def write_until_it_shows() -> bool:
        written.extend(numbered("b", range(len(written), len(written) + 20)))
        append(scene.logs / "b.log", *written[-20:])
        return unwell(scene)

    scene.wait(write_until_it_shows, "health to say so")
    assert "full" in str(scene.notices()["checkpoint"])
    append(scene.logs / "c.log", "three")
    filler.unlink()
    scene.expect("one", *written, "three")
    scene.wait(lambda: well(scene), "health to be good again")


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_disk_that_is_full_at_start(scene: Scene, small_disk: Path) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    assert scene.agent.stop() == 0
    filler = fill_up(small_disk)
    append(scene.logs / "a.log", "two")
    scene.agent.start()
    wait_for(lambda: not scene.agent.running or scene.agent.ready() or unwell_at_start(scene), "an end or a start")
    filler.unlink()
    if not scene.agent.running:
        scene.start()
    scene.expect("one", "two")


def unwell_at_start(scene: Scene) -> bool:
    try:
        return unwell(scene)
    except OSError:
        return False


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_disk_that_becomes_read_only_is_waited_for(scene: Scene, small_disk: Path) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    # Not even the one who holds files open for writing may be there, else the kernel refuses: a bind mount can do it.
    subprocess.run(["mount", "--bind", str(small_disk), str(small_disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(small_disk)], check=True)
    try:
        append(scene.logs / "a.log", "two")
        append(scene.logs / "new.log", "three")
        scene.wait(lambda: "two" in scene.messages() or unwell(scene), "health to say so, or the line")
    finally:
        subprocess.run(["umount", "--lazy", str(small_disk)], check=True)
    scene.expect("one", "two", "three")
    scene.wait(lambda: well(scene), "health to be good again")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_is_taken_away_ends_the_agent_for_a_restart(scene: Scene, how: str) -> None:
    lines = numbered("a", range(50))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    database = data_dir(scene) / "checkpoint.db"
    if how == "removed":
        subprocess.run(["rm", "-rf", str(data_dir(scene))], check=True)
    else:
        database.with_name("other").write_bytes(b"")
        os.replace(database.with_name("other"), database)
    count = 0

    def ended() -> bool:
        nonlocal count
        count += 1
        append(scene.logs / "b.log", f"b {count}")
        return not scene.agent.running

    wait_for(ended, "the agent to end", timeout_s=30, poll_s=0.1)
    assert scene.agent.exit_code == 1, scene.agent.tail()
    assert "restart" in scene.agent.log.read_text()
    scene.start()
    wanted = {*lines, *(f"b {number}" for number in range(1, count + 1)), "after"}
    append(scene.logs / "a.log", "after")
    scene.wait(lambda: set(scene.messages()) == wanted, "every line")


def test_a_second_agent_on_the_same_directory_ends_with_the_pid_of_the_first(scene: Scene) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    second = scene.agent.call("run", "--once")
    assert second.returncode == 1
    assert str(scene.agent.pid) in second.stderr
    append(scene.logs / "a.log", "two")
    scene.expect("one", "two")
    scene.kill()
    scene.start()  # the lock of the one that was killed holds nobody up
    append(scene.logs / "a.log", "three")
    scene.expect("one", "two", "three")
