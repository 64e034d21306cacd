"""Files that are gone before the agent can open them: it is halted while they come and go, so that it can't have."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hostile.scene import Scene, append

BUSY = "busy.log"


@contextmanager
def halted(scene: Scene) -> Iterator[Path]:
    """The log directory, in which nothing is noticed until all is over."""
    append(scene.logs / BUSY, "before")
    scene.start()
    scene.expect("before")
    with scene.agent.halted():
        yield scene.logs


def missed(scene: Scene) -> list[str]:
    for name, start, end, reason in scene.losses():
        assert (start, end, reason) == (0, None, "unseen"), name
    return sorted(name for name, *_ in scene.losses())


def test_a_file_that_came_and_went_is_in_the_ledger(scene: Scene) -> None:
    with halted(scene) as logs:
        append(logs / "gone.log", "lost")
        (logs / "gone.log").unlink()
        append(logs / "moved.log", "lost")
        (logs / "moved.log").rename(logs / "moved2.log")
        (logs / "moved2.log").unlink()
        append(logs / "twice.log", "lost")
        (logs / "twice.log").unlink()
        append(logs / "twice.log", "the second")
        append(scene.directory / "aside.log", "lost")
        (scene.directory / "aside.log").rename(logs / "staged.log")
        (logs / "staged.log").unlink()
        append(logs / "replaced.log", "lost")
        append(logs / "other.log", "the other")
        (logs / "other.log").rename(logs / "replaced.log")
    scene.expect("before", "the second", "the other")
    wanted = ["gone.log", "moved.log", "replaced.log", "staged.log", "twice.log"]
    scene.wait(lambda: len(scene.losses()) >= len(wanted), "the ledger")
    assert missed(scene) == wanted
    audit = scene.agent.answer("audit")
    assert sum(source["unsized_losses"] for source in audit["sources"]) == len(wanted)
    scene.restart()
    append(scene.logs / BUSY, "after")
    scene.expect("before", "the second", "the other", "after")
    assert missed(scene) == wanted


def test_nothing_is_missed_of_what_was_empty_or_can_still_be_found(scene: Scene) -> None:
    with halted(scene) as logs:
        (logs / "empty.log").touch()
        (logs / "empty.log").unlink()
        append(logs / "unwanted.txt", "not followed")
        (logs / "unwanted.txt").unlink()
        append(logs / "rotated.log", "one")
        (logs / "rotated.log").rename(logs / "rotated.log.1")
        append(logs / "rotated.log", "two")
        append(logs / "linked.log", "three")
        os.link(logs / "linked.log", logs / "linked2.log")
        append(logs / "staging", "four")
        (logs / "staging").rename(logs / "staged.log")
        os.mkfifo(logs / "pipe.log")
        append(logs / BUSY, "after")
    scene.expect("before", "one", "two", "three", "four", "after")
    rescans = scene.metric("hostagent_rescans_total")
    scene.wait(lambda: scene.metric("hostagent_rescans_total") > rescans + 1, "more scans")
    assert scene.losses() == []


def test_a_flood_of_them_is_told_in_a_few_lines(scene: Scene) -> None:
    with halted(scene) as logs:
        for number in range(500):
            append(logs / f"{number:03}.log", "lost")
            (logs / f"{number:03}.log").unlink()
        append(logs / BUSY, "after")
    scene.expect("before", "after")
    wanted = ["*", *(f"{number:03}.log" for number in range(20))]
    scene.wait(lambda: len(scene.losses()) >= len(wanted), "the ledger")
    assert missed(scene) == wanted


def test_short_lives_beside_a_busy_log_arrive_or_are_in_the_ledger(scene: Scene) -> None:
    append(scene.logs / BUSY, "before")
    scene.start()
    scene.expect("before")
    for number in range(100):
        append(scene.logs / BUSY, f"busy {number}")
        append(scene.logs / f"{number}.log", f"short {number}")
        (scene.logs / f"{number}.log").unlink()

    def told() -> bool:
        arrived = {message.split()[1] + ".log" for message in scene.messages() if message.startswith("short")}
        lost = missed(scene)
        # A machine that is slow enough to miss many of them has the rest in one line.
        return "*" in lost or sorted([*arrived, *lost]) == sorted(f"{number}.log" for number in range(100))

    scene.wait(told, "each of them to arrive or to be told of")
    append(scene.logs / BUSY, "after")
    scene.wait(lambda: "after" in scene.messages(), "the last line")
    assert sum(message.startswith("busy") for message in scene.messages()) == 100
