"""Files with a second name, a hard link or a symbolic one, that lose one of the two."""

import os
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append
from tests.support.follower import Follower, Store
from tests.tail.clock import HandClock


@pytest.mark.parametrize("looks", [0, 1])
def test_a_file_that_loses_one_of_two_names_soon_after_it_appeared_is_not_missed(tmp_path: Path, looks: int) -> None:
    """The second name is there with the first look, or comes after it."""
    log, second, clock, store = tmp_path / "app.log", tmp_path / "app.log.1", HandClock(), Store()
    agent = Follower(tmp_path / "state", [str(log), str(second)], store, clock, 10)
    agent.look()
    append(log, "line")
    agent.look(looks)
    os.link(log, second)
    agent.look(1 - looks)
    log.unlink()
    agent.settle(5)
    assert store.messages == {"line": 1}
    assert agent.losses() == []
    agent.kill()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_file_that_a_link_leads_to_no_more_is_found_by_the_next_start(scene: Scene, end: str) -> None:
    """It lies in another directory, and its writer has not changed over to the new one yet."""
    aside = scene.directory / "aside"
    aside.mkdir()
    link = scene.logs / "app.log"
    with (aside / "first").open("a") as writer:
        writer.write("one\n")
        writer.flush()
        link.symlink_to(aside / "first")
        scene.start()
        scene.expect("one")
        append(aside / "second", "two")
        (aside / "link").symlink_to(aside / "second")
        (aside / "link").rename(link)
        scene.expect("one", "two")
        if end == "stop":
            assert scene.agent.stop() == 0
        else:
            scene.kill()
        writer.write("three\n")
        writer.flush()
        scene.start()
        scene.expect("one", "two", "three")
    assert scene.losses() == []


def test_writes_behind_links_are_heard_though_there_are_more_files_than_descriptors(tmp_path: Path) -> None:
    """None of them waits for the next scan."""
    logs, aside = tmp_path / "logs", tmp_path / "aside"
    for directory in (logs, aside):
        directory.mkdir()
    names = [f"{number}.log" for number in range(5)]
    for name in names:
        append(aside / name, f"{name} first")
        (logs / name).symlink_to(aside / name)
    store = Store()
    agent = Follower(tmp_path / "state", [f"{logs}/*.log"], store, HandClock(), 2)
    agent.settle(1)
    for name in names:
        append(aside / name, f"{name} second")
    agent.settle(1)
    assert store.messages == {f"{name} {which}": 1 for name in names for which in ("first", "second")}
    agent.kill()
