"""What a spool loses is cut again from the log files under the same ids; only what is in neither is lost, and named."""

import gzip
import itertools
import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from hostagent.deliver.lane import MAX_QUEUED_BLOCKS
from tests.hostile.scene import Scene, append, numbered
from tests.support.backend import Backend

LINES = {"a": numbered("a", range(12_000)), "b": numbered("b", range(12_000)), "c": numbered("c", range(500))}
EVERY = [line for lines in LINES.values() for line in lines]


@pytest.fixture(name="scene")
def down(scene: Scene) -> Scene:
    """Its backend is down, and far more small blocks are spooled than an output may have in memory."""
    scene.config["outputs"]["main"]["block"] = {"max_wait": "20ms", "max_bytes": "64KiB"}
    scene.config["limits"]["chunk_bytes"] = "64KiB"
    scene.backend.behave("refuse")
    for name, lines in LINES.items():
        append(scene.logs / f"{name}.log", *lines)
    scene.start()
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the lines to be spooled")
    assert scene.metric("hostagent_spool_blocks") > 2 * MAX_QUEUED_BLOCKS
    return scene


def spool_of(scene: Scene) -> Path:
    return scene.directory / "agent/state/spool/main"


def damage(scene: Scene) -> None:
    rng = random.Random(4)
    for path in spool_of(scene).glob("*.seg"):
        with path.open("r+b") as file:
            for _ in range(12):
                file.seek(rng.randrange(path.stat().st_size))
                file.write(b"\xff\x00\xff")


def audit(scene: Scene) -> dict[str, int]:
    run = scene.agent.call("audit", "--json")
    found = json.loads(run.stdout)
    assert found["unaccounted"] == 0, run.stdout
    (source,) = found["sources"]
    account: dict[str, int] = source["account"]
    return account


def all_counts_as_delivered(scene: Scene) -> None:
    """Which it does a moment after the backend has stored it, with the ack."""
    scene.wait(lambda: (account := audit(scene))["delivered"] == account["written"], "the last acks")


def in_order(scene: Scene) -> bool:
    return all(lines == LINES[name[0]] for name, lines in scene.by_path().items())


def test_a_spool_that_was_removed_costs_nothing(scene: Scene) -> None:
    scene.kill()
    shutil.rmtree(spool_of(scene).parent)
    scene.start()
    assert "read from their log files again" in str(scene.notices()["spool main"])
    scene.wait(lambda: audit(scene)["spooled"] == sum(map(len, EVERY)) + len(EVERY), "all to be spooled again")
    scene.backend.behave()
    scene.expect(*EVERY)
    assert in_order(scene)
    assert scene.losses() == []
    all_counts_as_delivered(scene)


def test_until_they_are_cut_again_they_wait(scene: Scene) -> None:
    """The books are read with the agent away: neither delivered nor lost nor spooled."""
    scene.kill()
    held = audit(scene)
    assert held["spooled"] == held["written"]
    shutil.rmtree(spool_of(scene))
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    scene.start()
    scene.kill()
    account = audit(scene)
    assert account["waiting"] == account["written"] == held["written"]


def test_a_kill_while_they_are_cut_again_repeats_nothing(scene: Scene) -> None:
    scene.kill()
    shutil.rmtree(spool_of(scene))
    scene.backend.behave("slow", delay_s=0.1)
    for killed in range(4):
        scene.start()
        scene.wait(lambda blocks=3 * killed: scene.backend.stats()["stored"] > blocks, "some blocks")
        scene.kill()
    scene.backend.behave()
    scene.start()
    scene.expect(*EVERY)
    assert scene.losses() == []


def test_damage_that_is_met_while_it_drains_is_cut_again(scene: Scene) -> None:
    damage(scene)
    scene.backend.behave()
    scene.expect(*EVERY)
    assert "what it held is read from its files" in str(scene.status()["notices"])
    assert scene.losses() == []
    all_counts_as_delivered(scene)


def test_an_output_that_has_nothing_of_a_file_yet_does_not_make_it_another(scene: Scene) -> None:
    """The other output has had no room from the file's first byte on when the spool's loss is met."""
    with Backend(scene.directory / "other") as other:
        other.behave("refuse")
        scene.config["outputs"]["other"] = {**scene.output(), "url": other.url(), "spool": {"max_bytes": 0}}
        scene.config["limits"]["max_inflight_bytes"] = "1MiB"
        scene.restart()
        flood, late = numbered("flood", range(40_000)), numbered("late", range(3_000))
        append(scene.logs / "flood.log", *flood)
        scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the flood to be spooled")
        append(scene.logs / "late.log", *late)
        scene.wait(lambda: "late.log" in str(scene.files()), "the last file to be met")
        scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the last file to be spooled")
        scene.kill()
        shutil.rmtree(spool_of(scene))
        scene.start()
        scene.backend.behave()
        scene.expect(*EVERY, *flood, *late)
        assert scene.losses() == []


def test_what_was_copied_and_truncated_meanwhile_is_cut_from_the_copy(scene: Scene) -> None:
    """Nothing was read since, for want of room: nobody has noticed the truncation when the damage is met."""
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": "64KiB"}
    scene.restart()
    more, fresh = numbered("more", range(20_000)), numbered("fresh", range(100))
    append(scene.logs / "a.log", *more)
    scene.wait(lambda: "it is full" in str(scene.notices().get("spool main", "")), "the spool to be full")
    shutil.copyfile(scene.logs / "a.log", scene.logs / "a.1.log")
    os.truncate(scene.logs / "a.log", 0)
    append(scene.logs / "a.log", *fresh)
    damage(scene)
    scene.backend.behave()
    scene.expect(*EVERY, *more, *fresh)
    assert {reason for *_, reason in scene.losses()} == {"copytruncate"}


def test_what_is_in_neither_is_lost_to_the_byte(scene: Scene) -> None:
    scene.kill()
    shutil.rmtree(spool_of(scene))
    (scene.logs / "b.log").unlink()
    scene.backend.behave()
    scene.start()
    scene.expect(*LINES["a"], *LINES["c"])
    assert in_order(scene)
    size = sum(map(len, LINES["b"])) + len(LINES["b"])

    def lost() -> list[tuple[int, int]]:
        return sorted((start, end or 0) for path, start, end, reason in scene.losses() if reason == "spool_missing")

    scene.wait(lambda: sum(end - start for start, end in lost()) >= size, "the ledger")
    assert (lost()[0][0], lost()[-1][1]) == (0, size)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(lost()))
    scene.wait(lambda: (account := audit(scene))["delivered"] == account["written"] - size, "the last acks")
    assert audit(scene)["lost"] == size


def test_once_reads_them_again_too(scene: Scene) -> None:
    scene.kill()
    shutil.rmtree(spool_of(scene))
    scene.backend.behave()
    assert scene.agent.call("run", "--once", timeout_s=60).returncode == 0
    assert Counter(scene.messages()) == Counter(EVERY)


@pytest.mark.parametrize("compressed", [False, True], ids=["renamed", "compressed"])
def test_what_was_rotated_to_a_name_that_nobody_wants_is_cut_from_there(scene: Scene, *, compressed: bool) -> None:
    """It was spooled to its end, so the agent has let go of it, and may be another one by now."""
    log, rotated = scene.logs / "a.log", scene.logs / "a.log.1"
    log.rename(rotated)
    scene.wait(lambda: "a.log" not in str(scene.files()), "the rotated file to be closed")
    if compressed:
        with gzip.open(f"{rotated}.gz", "wb") as file:
            file.write(rotated.read_bytes())
        rotated.unlink()
    scene.kill()
    shutil.rmtree(spool_of(scene))
    scene.backend.behave()
    scene.start()
    scene.expect(*EVERY)
    assert in_order(scene)
    assert scene.losses() == []
    all_counts_as_delivered(scene)
