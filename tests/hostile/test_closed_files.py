"""Files that the agent has read and closed for want of descriptors, and that are gone when it wants to look again."""

import os
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append
from tests.support.follower import Follower, Store
from tests.tail.clock import HandClock

MOST = 3
OTHERS = range(MOST)


@pytest.fixture
def closed(scene: Scene) -> Path:
    """A log that was read to its end, and is closed because there are others."""
    scene.config["limits"]["max_open_files"] = MOST
    log = scene.logs / "closed.log"
    append(log, "one")
    scene.start()
    scene.expect("one")
    for number in OTHERS:
        append(scene.logs / f"other{number}.log", f"other {number}")
    scene.expect("one", *others())
    scene.wait(lambda: log.stat().st_ino not in scene.agent.open_inodes(), "it to be closed")
    return log


def others() -> list[str]:
    return [f"other {number}" for number in OTHERS]


def is_followed(scene: Scene, log: Path) -> bool:
    return any(file["path"] == str(log) for file in scene.files())


def expect_no_loss(scene: Scene, log: Path) -> None:
    """Neither now nor after a restart."""
    scene.wait(lambda: not is_followed(scene, log), "it to be over")
    assert scene.losses() == []
    scene.restart()
    assert scene.losses() == []
    assert scene.agent.answer("audit", "--losses")["losses"] == []


def test_a_closed_file_that_is_deleted_is_no_loss_if_nothing_was_written_to_it(scene: Scene, closed: Path) -> None:
    closed.unlink()
    expect_no_loss(scene, closed)


def test_nor_is_one_that_is_deleted_right_before_a_stop(scene: Scene, closed: Path) -> None:
    closed.unlink()
    scene.restart()
    assert scene.losses() == []


def test_nor_is_one_whose_place_is_taken_by_another_file(scene: Scene, closed: Path) -> None:
    append(scene.directory / "another", "another")
    (scene.directory / "another").rename(closed)
    scene.expect("one", *others(), "another")
    append(closed, "end")
    scene.expect("one", *others(), "another", "end")
    scene.wait(lambda: sum(file["path"] == str(closed) for file in scene.files()) == 1, "the old one to be over")
    assert scene.losses() == []


def test_nor_is_one_that_was_read_closed_and_read_again(scene: Scene, closed: Path) -> None:
    append(closed, "two")
    scene.expect("one", *others(), "two")
    for number in OTHERS:
        append(scene.logs / f"more{number}.log", f"more {number}")
    scene.expect("one", *others(), "two", *(f"more {number}" for number in OTHERS))
    scene.wait(lambda: closed.stat().st_ino not in scene.agent.open_inodes(), "it to be closed")
    closed.unlink()
    expect_no_loss(scene, closed)


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_written_to_a_closed_file_before_it_was_deleted_is_lost(
    scene: Scene, closed: Path, *, replaced: bool
) -> None:
    append(scene.directory / "another", "another")
    with scene.agent.halted():
        append(closed, "two")
        if replaced:
            (scene.directory / "another").rename(closed)
        else:
            closed.unlink()
    scene.wait(scene.losses, "the ledger")
    assert scene.losses() == [("closed.log", len("one\n"), None, "deleted")]
    scene.expect("one", *others(), *(["another"] if replaced else []))


def test_what_is_written_to_a_closed_file_after_it_was_deleted_is_lost(scene: Scene, closed: Path) -> None:
    with closed.open("a") as writer:
        closed.unlink()
        scene.wait(lambda: not is_followed(scene, closed), "it to be over")
        assert scene.losses() == []
        writer.write("two\n")
    scene.wait(scene.losses, "the ledger")
    assert scene.losses() == [("closed.log", len("one\n"), None, "deleted")]


def test_a_line_that_had_not_ended_in_a_closed_file_is_lost_with_it(scene: Scene) -> None:
    """A file with unread bytes is closed only if all files have some."""
    scene.config["limits"] |= {"max_open_files": 1, "rescan_interval": "1h"}
    scene.start()
    log = scene.logs / "closed.log"
    with log.open("a") as writer:
        writer.write("one\nhalf a line")
    scene.expect("one")
    append(scene.logs / "other.log", "other")
    scene.expect("one", "other")
    # A scan would open the first one again, and so would the news of its lines, which come behind those of new names.
    append(scene.logs / "other.log", "more")
    scene.expect("one", "other", "more")
    scene.wait(lambda: log.stat().st_ino not in scene.agent.open_inodes(), "it to be closed")
    log.unlink()
    scene.wait(scene.losses, "the ledger")
    assert scene.losses() == [("closed.log", len("one\n"), None, "deleted")]


def test_a_closed_file_that_comes_back_is_read_on(scene: Scene, closed: Path) -> None:
    os.link(closed, scene.directory / "aside")
    closed.unlink()
    with (scene.directory / "aside").open("a") as writer:
        scene.wait(lambda: not is_followed(scene, closed), "it to be over")
        assert scene.losses() == []
        (scene.directory / "aside").rename(scene.logs / "back.log")
        scene.wait(lambda: is_followed(scene, scene.logs / "back.log"), "it to be followed again")
        writer.write("two\n")
    scene.expect("one", *others(), "two")
    assert scene.losses() == []


def test_a_file_that_was_deleted_unheard_is_not_closed_for_another_one(tmp_path: Path) -> None:
    """Its writer's last line can be had from nowhere else."""
    log, other, store = tmp_path / "app.log", tmp_path / "other.log", Store()
    append(log, "one")
    agent = Follower(tmp_path / "state", [f"{tmp_path}/*.log"], store, HandClock(), 1)
    agent.settle(1)
    append(other, "other")
    append(log, "two")
    log.unlink()
    agent.settle(5)
    assert store.messages == {"one": 1, "other": 1, "two": 1}
    assert agent.losses() == []
    agent.kill()
