"""Files that begin as another one does, under a name built on that one's, and go before it is clear what they are."""

import os
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append, numbered
from tests.support.follower import Follower, Store
from tests.tail.clock import HandClock

LINES = numbered("a", range(100))


@pytest.fixture
def log(scene: Scene) -> Path:
    """A log that is read, and beside which every name built on its own is wanted, too."""
    scene.source["include"] = [f"{scene.logs}/*"]
    log = scene.logs / "a.log"
    append(log, *LINES)
    scene.start()
    scene.expect(*LINES)
    return log


def copied(scene: Scene, log: Path, name: str) -> Path:
    """A second file with the same bytes, which is under suspicion."""
    copy = scene.logs / name
    copy.write_bytes(log.read_bytes())
    scene.wait(lambda: "looks like a copy" in str(scene.notices().get(str(copy))), "the suspicion")
    return copy


def test_a_copy_that_is_renamed_before_its_original_is_truncated_comes_once(scene: Scene, log: Path) -> None:
    """As tools do it that give the copy its name when it is complete."""
    copy = copied(scene, log, "a.log.tmp")
    moved = copy.rename(scene.logs / "a.log.1")
    scene.wait(lambda: "looks like a copy" in str(scene.notices().get(str(moved))), "the suspicion to go with it")
    os.truncate(log, 0)
    append(log, "after")
    scene.expect(*LINES, "after")
    append(moved, "late")
    scene.expect(*LINES, "after", "late")


def test_a_copy_that_is_moved_away_is_not_read(scene: Scene, log: Path) -> None:
    copied(scene, log, "a.log.1").rename(scene.directory / "elsewhere")
    append(log, "after")
    scene.expect(*LINES, "after")
    scene.wait(lambda: not scene.notices(), "the suspicion to be over")
    append(log, "end")
    scene.expect(*LINES, "after", "end")
    assert scene.losses() == []


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_one_that_turned_out_to_be_its_own_right_before_it_went_is_read(scene: Scene, log: Path, how: str) -> None:
    copy = copied(scene, log, "a.log.1")
    with scene.agent.halted():
        append(copy, "its own")
        if how == "deleted":
            copy.unlink()
        elif how == "moved":
            copy.rename(scene.directory / "elsewhere")
        else:
            append(scene.directory / "another", "another")
            (scene.directory / "another").rename(copy)
    scene.expect(*LINES, *LINES, "its own", *(["another"] if how == "replaced" else []))
    assert scene.losses() == []


def test_one_that_is_deleted_as_it_was_is_not_read(scene: Scene, log: Path) -> None:
    copied(scene, log, "a.log.1").unlink()
    append(log, "after")
    scene.expect(*LINES, "after")
    scene.wait(lambda: not scene.notices(), "the suspicion to be over")
    assert scene.losses() == []


def test_no_more_are_held_open_than_there_are_descriptors_for(scene: Scene, log: Path) -> None:
    copies = [scene.logs / f"a.log.{number}" for number in range(20)]
    for copy in copies:
        copy.write_bytes(log.read_bytes())
    scene.wait(lambda: len(scene.notices()) == len(copies), "the suspicion")
    assert len(scene.agent.open_inodes() & {copy.stat().st_ino for copy in copies}) == 16


def test_a_copy_that_has_another_name_when_it_is_first_heard_of_comes_once(scene: Scene, log: Path) -> None:
    with scene.agent.halted():
        append(log, "unread")
        moved = scene.logs / "a.log.1"
        (scene.logs / "a.log.tmp").write_bytes(log.read_bytes())
        (scene.logs / "a.log.tmp").rename(moved)
        os.truncate(log, 0)
    append(log, "after")
    scene.expect(*LINES, "unread", "after")
    append(moved, "late")
    scene.expect(*LINES, "unread", "after", "late")
    assert {reason for *_, reason in scene.losses()} == {"copytruncate"}


def test_a_copy_that_is_renamed_and_deleted_right_after_the_truncate_is_not_read(tmp_path: Path) -> None:
    """When it is looked at for the last time, the generation it was copied from is over."""
    log, copy, moved = (tmp_path / name for name in ("a.log", "a.log.2", "a.log.1"))
    store = Store()
    append(log, *LINES)
    agent = Follower(tmp_path / "state", [f"{log}*"], store, HandClock(), 10)
    agent.settle(1)
    copy.write_bytes(log.read_bytes())
    agent.settle(1)
    os.truncate(log, 0)
    copy.rename(moved)
    moved.unlink()
    agent.settle(5)
    assert store.messages == dict.fromkeys(LINES, 1)
    agent.kill()
