"""Driven into each of its limits the agent stays within it, says so, goes on with the rest and loses nothing unsaid."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.scene import Scene, append, numbered, rss_peak_bytes
from tests.support.backend import Backend
from tests.support.lines import make_line
from tests.support.oracle import Oracle

MIB = 1 << 20


@pytest.fixture
def other(scene: Scene) -> Iterator[Backend]:
    """The backend of a second output that every line goes to."""
    with Backend(scene.directory / "other") as backend:
        # Not compressed, so that lines take as much room on the disk as in their files.
        scene.config["outputs"]["main"]["compression"] = "none"
        scene.config["outputs"]["other"] = {**scene.output(), "url": backend.url()}
        yield backend


def log(scene: Scene, name: str, lines: int, first: int = 0) -> int:
    """Lines of about 450 bytes; how many there are now."""
    with (scene.logs / f"{name}.log").open("ab") as file:
        for seq in range(first, first + lines):
            file.write(make_line(name, 0, seq, 0, 400))
    return first + lines


def arrives(scene: Scene, backend: Backend, written: dict[str, int]) -> None:
    oracle = Oracle()

    def complete() -> bool:
        oracle.take(backend.new_arrivals())
        return oracle.complete(written)

    scene.wait(complete, "every line")
    assert oracle.findings(written).clean, oracle.findings(written)


def never_more(scene: Scene, size: Callable[[], float], most: float, until: Callable[[], Any], what: str) -> None:
    """`size` stays within `most` all the time until something is so."""

    def looked() -> bool:
        assert size() <= most, f"{size():.0f} is more than {most:.0f}"
        return bool(until())

    scene.wait(looked, what)


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.seg")) if directory.exists() else 0


def spool_of(scene: Scene) -> Path:
    return scene.directory / "agent/state/spool/main"


def test_memory_in_flight_is_bounded_while_a_backend_takes_nothing(scene: Scene, other: Backend) -> None:
    scene.config["limits"] |= {"max_inflight_bytes": "4MiB", "chunk_bytes": "256KiB"}
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    scene.backend.behave("stall")
    scene.start()
    before = rss_peak_bytes(scene.agent.pid)
    written = {"a": log(scene, "a", 80_000)}

    def inflight() -> float:
        return scene.metric("hostagent_inflight_bytes")

    def all_delivered() -> bool:
        status = scene.output_status("other")
        return bool(status["delivered_records"] == written["a"])

    # Each output may overdraw by the chunk that was let in last, as encoded.
    never_more(scene, inflight, 5 * MIB, all_delivered, "the other output to deliver all")
    assert scene.output_status()["delivered_records"] == 0
    assert rss_peak_bytes(scene.agent.pid) - before < 32 * MIB
    arrives(scene, other, written)
    scene.backend.behave()
    arrives(scene, scene.backend, written)
    assert scene.losses() == []


def test_a_spool_at_its_bound_stops_reading_for_its_output_only(scene: Scene, other: Backend) -> None:
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": "4MiB", "reserve_bytes": 0}
    scene.backend.behave("refuse")
    written = {"a": log(scene, "a", 40_000)}
    scene.start()

    def spooled() -> int:
        return disk_bytes(spool_of(scene))

    def told() -> bool:
        return "spool.max_bytes" in str(scene.notices().get("spool main"))

    never_more(scene, spooled, 4 * MIB, told, "the spool to be full")
    arrives(scene, other, written)
    assert scene.output_status()["behind_bytes"] > 0
    assert scene.agent.get("/healthz")[0] == 200
    scene.backend.behave()
    arrives(scene, scene.backend, written)
    scene.wait(lambda: "spool main" not in scene.notices(), "the notice to be gone")
    assert scene.losses() == []


def mount(place: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)], check=True)


@pytest.fixture
def small_disk(scene: Scene) -> Iterator[Path]:
    """The main output's spool on a filesystem of its own of 4 MiB."""
    place = spool_of(scene)
    place.mkdir(parents=True)
    mount(place, "size=4m")
    yield place
    scene.close()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.requires(root=True, tools=["mount"])
@pytest.mark.parametrize("reserve", ["0", "2MiB"])
def test_a_full_disk_under_one_spool_stops_no_other_output(
    scene: Scene, other: Backend, small_disk: Path, reserve: str
) -> None:
    scene.config["outputs"]["main"]["spool"] = {"reserve_bytes": reserve}
    scene.backend.behave("refuse")
    written = {"a": log(scene, "a", 30_000)}
    scene.start()
    scene.wait(lambda: "spool main" in scene.notices(), "a notice")
    assert "bytes free, spool.reserve_bytes" in str(scene.notices()["spool main"])
    arrives(scene, other, written)
    written["b"] = log(scene, "b", 10)
    arrives(scene, other, {"b": 10})
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize >= (0 if reserve == "0" else 2 * MIB)
    assert scene.output_status()["behind_bytes"] > 0
    mount(small_disk, "remount", "size=64m")
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the rest to be spooled")
    scene.wait(lambda: "spool main" not in scene.notices(), "the notice to be gone")
    scene.kill()
    scene.start()
    scene.backend.behave()
    arrives(scene, scene.backend, written)
    assert scene.losses() == []


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_full_disk_under_the_dead_letters_stops_no_other_output(scene: Scene, other: Backend) -> None:
    place = scene.directory / "agent/state/dead-letters"
    place.mkdir(parents=True)
    mount(place, "size=1m")
    try:
        (place / "others").write_bytes(os.urandom(MIB))
        scene.backend.behave("status", status=400, times=1)
        written = {"a": log(scene, "a", 10)}
        scene.start()
        arrives(scene, other, written)
        scene.wait(lambda: "dead letters can't be stored" in scene.output_status()["last_error"], "an attempt")
        written["b"] = log(scene, "b", 10)
        arrives(scene, other, {"b": 10})
        assert scene.output_status()["delivered_records"] == 0
        assert scene.agent.get("/healthz")[0] == 200
        (place / "others").unlink()
        arrives(scene, scene.backend, {"b": 10})
        assert scene.metric("hostagent_dead_letters_records") == 10
        assert scene.losses() == []
    finally:
        scene.close()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_deleted_files_are_held_open_up_to_their_budget(scene: Scene) -> None:
    scene.config["limits"] |= {"max_deleted_bytes": "2MiB", "chunk_bytes": "64KiB"}
    scene.config["outputs"]["main"] |= {"spool": {"max_bytes": 0}, "block": {"max_bytes": "64KiB"}}
    scene.backend.behave("refuse")
    scene.start()
    written = {}
    sizes = {}
    for name in ("a", "b", "c", "d"):
        written[name] = log(scene, name, 2000)
        path = scene.logs / f"{name}.log"
        sizes[name] = path.stat().st_size
        scene.wait(lambda name=name: any(f"{name}.log" in file["path"] for file in scene.files()), "the file")
        path.unlink()

    def held() -> int:
        """Bytes that the disk can't have back because of the agent."""
        return sum(file.st_size for name, file in scene.agent.open_files() if name.startswith(str(scene.logs)))

    assert sum(sizes.values()) > 2 * MIB
    scene.wait(lambda: held() <= 2 * MIB, "the budget to be kept")
    lost = {name: (start, end) for name, start, end, reason in scene.losses() if reason == "deleted_over_budget"}
    assert list(lost) == [f"{name}.log" for name in sizes][: len(lost)]  # the oldest
    assert 0 < len(lost) < len(sizes)
    assert [end for _, end in lost.values()] == list(sizes.values())[: len(lost)]
    scene.backend.behave()
    kept = {name: count for name, count in written.items() if f"{name}.log" not in lost}

    def arrived() -> bool:
        seen = Counter(message.split(" ", 1)[0] for message in scene.messages())
        return all(seen[name] == count for name, count in kept.items())

    scene.wait(arrived, "what was held")
    scene.wait(lambda: scene.agent.call("audit").returncode == 0, "the sums to come out")


def test_what_is_written_to_a_deleted_file_after_it_was_given_up_is_told_as_of_unknown_size(scene: Scene) -> None:
    scene.config["limits"] |= {"max_deleted_bytes": "1MiB", "chunk_bytes": "64KiB"}
    scene.config["outputs"]["main"] |= {"spool": {"max_bytes": 0}, "block": {"max_bytes": "64KiB"}}
    scene.backend.behave("refuse")
    log(scene, "a", 8000)
    path = scene.logs / "a.log"
    size = path.stat().st_size
    with path.open("ab") as writer:
        scene.start()
        scene.wait(scene.files, "the file to be met")
        path.unlink()
        scene.wait(lambda: len(scene.losses()) >= 2, "the ledger")
        writer.write(b"later\n")
    (behind, known) = scene.losses()
    assert behind == ("a.log", size, None, "deleted_over_budget")
    assert known[2:] == (size, "deleted_over_budget")
    scene.backend.behave()
    scene.wait(lambda: not scene.files(), "the rest to be delivered")
    assert scene.agent.call("audit").returncode == 0


@pytest.mark.requires(tools=["prlimit"])
def test_a_process_limit_of_descriptors(scene: Scene) -> None:
    scene.agent.wrapper = ["prlimit", "--nofile=64:64", "--"]
    written = {f"f{number}": log(scene, f"f{number}", 5) for number in range(200)}
    scene.start()
    scene.wait(lambda: scene.output_status()["delivered_records"] == 1000, "the first lines")
    written = {name: log(scene, name, 5, count) for name, count in written.items()}
    append(scene.logs / "last.log", *numbered("last", range(3)))
    oracle = Oracle()
    found: list[str] = []

    def complete() -> bool:
        for arrival in scene.backend.new_arrivals():
            for record in arrival.records():
                if record["message"].startswith("last line"):
                    found.append(record["message"])
                else:
                    oracle.take_message(record["message"])
        return len(found) == 3 and oracle.complete(written)

    scene.wait(complete, "every line and the new file's")
    assert oracle.findings(written).clean
    assert len(found) == 3
    assert scene.losses() == []
