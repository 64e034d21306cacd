"""The counters of spool and dead letters balance to the record and the byte with what others counted.

The outside counts are what the test wrote, what the backend stored, what the ledger says, and what another process
reads from the files on disk.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hostile.scene import Scene

LINE_BYTES = 1000


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as one:
        one.config["limits"]["chunk_bytes"] = "16KiB"
        one.config["outputs"]["main"]["block"] = {"max_bytes": "16KiB", "max_wait": "20ms"}
        one.config["outputs"]["main"]["spool"] = {"reserve_bytes": 0}
        yield one


class Spool(NamedTuple):
    """Records and bytes of log under one heading."""

    records: float
    log_bytes: float


def spooled(scene: Scene, verb: str = "") -> Spool:
    suffix = "_total" if verb else ""
    name = f"hostagent_spool_{verb}_" if verb else "hostagent_spool_"
    return Spool(scene.metric(f"{name}records{suffix}"), scene.metric(f"{name}log_bytes{suffix}"))


def write(scene: Scene, records: int) -> int:
    """Lines that don't compress; how many bytes."""
    with (scene.logs / "a.log").open("ab") as log:
        for _ in range(records):
            log.write(os.urandom(LINE_BYTES // 2).hex().encode()[: LINE_BYTES - 1] + b"\n")
    return records * LINE_BYTES


def fill_spool(scene: Scene, records: int) -> int:
    scene.backend.behave("refuse")
    written = write(scene, records)
    scene.start()
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "everything to be spooled")
    return written


def counts_delivered(scene: Scene, records: int, log_bytes: int | None = None) -> None:
    """What the backend has stored, and what the spool has let go, is counted as delivered a moment later."""
    name = "hostagent_output_delivered_records_total"
    scene.wait(lambda: scene.metric(name) >= records, "it to count as delivered")
    assert scene.metric(name) == len(scene.take()) == records
    if log_bytes is not None:
        assert scene.metric("hostagent_output_delivered_bytes_total") == log_bytes


def on_disk(scene: Scene) -> int:
    """Records in the frames, read by another process."""
    blocks = scene.agent.answer("spool", "ls", "main")
    return sum(one["records"] for one in blocks)


def test_what_is_spooled_and_drained_is_what_was_written_and_received(scene: Scene) -> None:
    written = fill_spool(scene, 300)
    assert spooled(scene) == spooled(scene, "spooled") == (300, written)
    assert on_disk(scene) == 300
    assert 0 < scene.metric("hostagent_spool_oldest_age_seconds") < 600
    disk = sum(path.stat().st_size for path in (scene.directory / "agent/state/spool/main").glob("*.seg"))
    assert scene.metric("hostagent_spool_bytes") == disk
    scene.kill()
    scene.start()
    assert spooled(scene) == (300, written)
    assert spooled(scene, "spooled") == spooled(scene, "drained") == (0, 0)
    more = write(scene, 50)
    scene.wait(lambda: spooled(scene, "spooled") == (50, more), "more to be spooled")
    scene.backend.behave()
    scene.wait(lambda: len(scene.take()) >= 350, "the records")
    scene.wait(lambda: spooled(scene) == (0, 0), "the spool to be empty")
    assert spooled(scene, "drained") == (350, written + more)
    assert spooled(scene, "dropped") == (0, 0)
    counts_delivered(scene, 350, written + more)
    assert scene.metric("hostagent_output_cut_records_total") == 50
    assert scene.metric("hostagent_spool_oldest_age_seconds") == 0


def test_what_made_room_is_in_the_ledger_and_the_rest_arrives(scene: Scene) -> None:
    scene.config["outputs"]["main"]["spool"] |= {"max_bytes": "3MiB", "when_full": "drop_oldest"}
    written = fill_spool(scene, 10_000)
    dropped, waiting = spooled(scene, "dropped"), spooled(scene)
    assert dropped.records > 0
    assert spooled(scene, "spooled") == (10_000, written)
    assert (dropped.records + waiting.records, dropped.log_bytes + waiting.log_bytes) == (10_000, written)
    assert on_disk(scene) == waiting.records
    assert scene.metric("hostagent_source_lost_bytes_total") == dropped.log_bytes
    scene.backend.behave()
    scene.wait(lambda: spooled(scene) == (0, 0), "the spool to be empty")
    assert spooled(scene, "drained") == waiting
    counts_delivered(scene, int(waiting.records))


def test_a_damaged_block_counts_as_dropped_and_is_delivered_as_another(scene: Scene) -> None:
    written = fill_spool(scene, 300)
    (segment,) = (scene.directory / "agent/state/spool/main").glob("*.seg")
    with segment.open("r+b") as file:
        for place in (segment.stat().st_size // 3, segment.stat().st_size * 2 // 3):
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 0xFF]))
    scene.backend.behave()
    scene.wait(lambda: spooled(scene) == (0, 0), "the spool to be empty")
    dropped, drained = spooled(scene, "dropped"), spooled(scene, "drained")
    assert dropped.records > 0
    assert (dropped.records + drained.records, dropped.log_bytes + drained.log_bytes) == (300, written)
    scene.wait(lambda: len(scene.take()) == 300, "what was damaged to come from the file")
    counts_delivered(scene, 300)
    assert scene.metric("hostagent_source_lost_bytes_total") == 0


def letters(scene: Scene, what: str) -> float:
    return scene.metric(f"hostagent_dead_letters_{what}")


def kept(scene: Scene) -> int:
    """Records among the dead letters, read by another process."""
    return sum(one["records"] for one in scene.agent.answer("dead-letters", "ls", "main"))


def test_every_record_is_delivered_or_dead_and_what_is_requeued_leaves(scene: Scene) -> None:
    scene.backend.behave("status", status=400, times=5)
    written = write(scene, 300)
    scene.start()
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "everything to be done with")
    refused = kept(scene)
    assert 0 < refused == letters(scene, "records") == letters(scene, "taken_records_total")
    assert scene.metric("hostagent_output_dead_letters_total") == refused
    assert scene.metric("hostagent_output_delivered_records_total") == len(scene.take()) == 300 - refused
    assert scene.metric("hostagent_output_delivered_bytes_total") == written - refused * LINE_BYTES
    assert scene.metric("hostagent_output_cut_records_total") == 300
    disk = sum(path.stat().st_size for path in (scene.directory / "agent/state/dead-letters/main").glob("*.seg"))
    assert letters(scene, "bytes") == disk
    assert scene.agent.call("dead-letters", "requeue", "main", "--all").returncode == 0
    scene.wait(lambda: letters(scene, "records") == 0, "the dead letters to be gone")
    assert letters(scene, "requeued_records_total") == refused
    assert len(scene.take()) == 300


@pytest.mark.parametrize("max_bytes", ["0", "70KiB"])
def test_dead_letters_stay_within_the_outputs_bound(scene: Scene, max_bytes: str) -> None:
    scene.config["outputs"]["main"]["dead_letters"] = {"max_bytes": max_bytes}
    scene.backend.behave("status", status=400)
    written = write(scene, 300)
    scene.start()
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "everything to be refused")
    bound = 0 if max_bytes == "0" else 70 * 1024
    assert letters(scene, "max_bytes") == bound
    assert letters(scene, "bytes") <= bound
    assert (letters(scene, "records") > 0) == (bound > 0)
    assert letters(scene, "taken_records_total") == 300
    assert letters(scene, "dropped_records_total") + letters(scene, "records") == 300
    lost = [loss for loss in scene.losses() if loss[3] == "dead_letter_dropped"]
    assert sum((end or 0) - start for _, start, end, _ in lost) == written - letters(scene, "records") * LINE_BYTES
    assert "made room" in str(scene.notices()["dead letters main"])


def test_damaged_dead_letters_are_told_at_the_next_start(scene: Scene) -> None:
    scene.backend.behave("status", status=400)
    write(scene, 10)
    scene.start()
    scene.wait(lambda: letters(scene, "records") == 10, "everything to be refused")
    scene.kill()
    (segment,) = (scene.directory / "agent/state/dead-letters/main").glob("*.seg")
    with segment.open("r+b") as file:
        file.seek(40)
        file.write(b"\0\0\0\0")
    scene.start()
    scene.wait(lambda: "dead letters main" in scene.notices(), "a notice")
