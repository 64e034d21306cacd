"""The configuration changes under load: nothing is lost, and nothing repeated but what a changed output was sending."""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append, numbered
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer


def put(scene: Scene) -> None:
    """Write the scene's configuration and have the running agent look at it."""
    replace(scene)
    scene.poke()


def replace(scene: Scene) -> None:
    fresh = scene.agent.config_path.with_suffix(".new")
    fresh.write_text(json.dumps({**scene.agent.config, **scene.config}, indent=1))
    fresh.rename(scene.agent.config_path)


def change(scene: Scene) -> None:
    """The same, and wait until it is in force."""
    told = scene.agent.log.read_text().count("is in force")
    put(scene)
    scene.wait(lambda: scene.agent.log.read_text().count("is in force") > told, "the new configuration")


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path / "second") as backend:
        yield backend


def messages_of(backend: Backend, into: Counter[str]) -> Counter[str]:
    for arrival in backend.new_arrivals():
        into.update(record["message"] for record in arrival.records())
    return into


def load(scene: Scene) -> Load:
    return Load(str(scene.logs), streams=3, bytes_per_s=500_000, storm_per_s=2, rotations=("rename",), seed=9)


def test_a_source_changes_under_load(scene: Scene) -> None:
    oracle = Oracle()
    scene.start()
    with Writer(load(scene)) as writer:
        for number in range(4):
            scene.source["fields"] = {"turn": number}
            # The last change is found without anybody's help.
            put(scene) if number < 3 else replace(scene)
            turns: set[int] = set()

            def in_force(number: int = number, turns: set[int] = turns) -> bool:
                for arrival in scene.backend.new_arrivals():
                    turns.update(record.get("turn", -1) for record in arrival.records())
                    oracle.take([arrival])
                return number in turns

            scene.wait(in_force, "records of the changed source")
        written = writer.stop()
    scene.expect_all(oracle, written)


def test_a_source_goes_and_comes_back_under_load(scene: Scene) -> None:
    oracle = Oracle()
    app = scene.source
    scene.start()
    with Writer(load(scene)) as writer:
        scene.wait(lambda: scene.backend.stats()["stored"] > 3, "deliveries")
        writer.order("change", load={"storm_per_s": 0.0})
        writer.order("pause")
        # What is rotated while nobody follows it is nobody's.
        scene.config["sources"] = {"other": {"type": "file", "include": [f"{scene.directory}/nothing/*.log"]}}
        change(scene)
        writer.order("resume")
        scene.config["sources"] = {"app": app}
        change(scene)
        writer.order("change", load={"storm_per_s": 2.0})
        seen = scene.backend.stats()["stored"]
        scene.wait(lambda: scene.backend.stats()["stored"] > seen + 2, "deliveries")
        written = writer.stop()
    scene.expect_all(oracle, written)


def test_what_was_rotated_while_its_source_was_gone_for_a_moment(scene: Scene) -> None:
    scene.config["limits"]["rescan_interval"] = "1h"
    scene.config["sources"]["other"] = {"type": "file", "include": [f"{scene.directory}/*.other"]}
    rotated, kept = scene.logs / "rotated.log", scene.logs / "kept.log"
    with rotated.open("a") as old, kept.open("a") as writer:
        old.write("one\n")
        old.flush()
        writer.write("kept one\n")
        writer.flush()
        scene.start()
        scene.expect("one", "kept one")
        app = scene.config["sources"].pop("app")
        change(scene)
        rotated.rename(scene.logs / "rotated.log.1")
        append(rotated, "two")
        scene.config["sources"]["app"] = app
        put(scene)
        scene.expect("one", "two", "kept one")
        writer.write("kept two\n")
        writer.flush()
        append(rotated, "three")
        scene.expect("one", "two", "three", "kept one", "kept two")


def test_a_file_that_is_excluded_while_it_is_written_and_wanted_again(scene: Scene) -> None:
    path = scene.logs / "app.log"
    with path.open("a") as writer:
        writer.write("one\n")
        writer.flush()
        scene.start()
        scene.expect("one")
        scene.source["exclude"] = ["app.log"]
        change(scene)
        scene.wait(lambda: not scene.files(), "the file to be let go")
        writer.write("two\n")
        writer.flush()
        append(scene.logs / "b.log", "b")
        scene.expect("one", "b")
        del scene.source["exclude"]
        put(scene)
        scene.expect("one", "b", "two")
        writer.write("three\n")
        writer.flush()
        scene.expect("one", "b", "two", "three")
    assert scene.losses() == []


def test_a_file_that_is_written_goes_over_to_another_source(scene: Scene) -> None:
    path = scene.logs / "app.log"
    other = {"type": "file", "include": [f"{scene.logs}/*.txt"], "fields": {"of": "other"}}
    scene.config["sources"]["other"] = other
    with path.open("a") as writer:
        writer.write("one\n")
        writer.flush()
        scene.start()
        scene.expect("one")
        scene.source["exclude"] = ["app.log"]
        other["include"] = [str(path)]
        change(scene)
        writer.write("two\n")
        writer.flush()
        scene.expect("one", "two")
    assert [record.get("of") for record in scene.take()] == [None, "other"]


def test_an_output_moves_to_another_backend_under_load(scene: Scene, second: Backend) -> None:
    scene.start()
    with Writer(load(scene)) as writer:
        scene.wait(lambda: scene.backend.stats()["stored"] > 3, "deliveries")
        scene.config["outputs"]["main"]["url"] = second.url()
        change(scene)
        scene.wait(lambda: second.stats()["stored"] > 3, "deliveries to the second")
        written = writer.stop()
    first_oracle, second_oracle = Oracle(), Oracle()

    def complete() -> bool:
        first_oracle.take(scene.backend.new_arrivals())
        second_oracle.take(second.new_arrivals())
        return all(
            first_oracle.has(name, range(seq, seq + 1)) or second_oracle.has(name, range(seq, seq + 1))
            for name, count in written.items()
            for seq in range(count)
        )

    wait_for(complete, "every line at one of the two", so_far=scene.agent.tail)
    both = sum(
        first_oracle.has(name, range(seq, seq + 1)) and second_oracle.has(name, range(seq, seq + 1))
        for name, count in written.items()
        for seq in range(count)
    )
    assert both == 0, f"{both} lines went to both, though the first backend answered all it was sent"
    assert first_oracle.twice == second_oracle.twice == 0


def test_an_output_that_was_down_moves_with_everything_it_had_not_sent(scene: Scene, second: Backend) -> None:
    """Also from files that were rotated away meanwhile and have no wanted name any more."""
    scene.backend.behave("refuse")
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    path = scene.logs / "a.log"
    first, rest = numbered("first", range(2000)), numbered("second", range(2000))
    append(path, *first)
    scene.start()
    scene.wait(lambda: scene.output_status()["unacked_blocks"] > 0, "blocks that can't go")
    path.rename(scene.logs / "a.log.1")
    append(path, *rest)
    scene.wait(lambda: {"idle", "draining"} & {file["state"] for file in scene.files()}, "the rotation to be seen")
    scene.config["outputs"]["main"]["url"] = second.url()
    change(scene)
    got: Counter[str] = Counter()
    wanted = Counter([*first, *rest])
    wait_for(lambda: messages_of(second, got) >= wanted, "every line", so_far=lambda: f"{sum(got.values())} of 4000")
    assert got == wanted


def test_an_output_that_is_changed_while_it_is_down_gets_its_room_back(scene: Scene) -> None:
    """What its old lane had in memory is read anew, so it holds no share of `max_inflight_bytes` any more."""
    scene.backend.behave("refuse")
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    scene.config["limits"] |= {"max_inflight_bytes": "64KiB", "chunk_bytes": "16KiB"}
    lines = numbered("a", range(2000))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.wait(lambda: scene.output_status()["unacked_blocks"] > 0, "blocks that can't go")
    scene.config["outputs"]["main"]["headers"] = {"X-Turn": "2"}
    change(scene)
    scene.backend.behave()
    scene.poke()
    scene.expect(*lines)


def test_an_output_is_not_changed_before_what_it_had_in_flight_can_be_forgotten(scene: Scene) -> None:
    """Its blocks are read anew under other ids: the next start must not know the old ones."""
    scene.backend.behave("refuse")
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    lines = numbered("a", range(100))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.wait(lambda: scene.output_status()["unacked_blocks"] > 0, "blocks that can't go")
    with contextlib.closing(sqlite3.connect(Path(scene.agent.config["data_dir"]) / "checkpoint.db")) as shell:
        shell.execute("BEGIN IMMEDIATE")
        scene.config["outputs"]["main"]["headers"] = {"X-Turn": "2"}
        put(scene)
        scene.wait(lambda: "database is locked" in str(scene.notices()), "the change to be tried")
        shell.rollback()
    scene.wait(lambda: "is in force" in scene.agent.log.read_text(), "the new configuration")
    scene.backend.behave()
    scene.poke()
    scene.expect(*lines)
    scene.kill()
    append(scene.logs / "a.log", "later")
    scene.start()
    scene.expect(*lines, "later")


@pytest.mark.parametrize("mistaken", [False, True])
def test_an_output_goes_on_when_its_change_could_not_be_made_and_is_taken_back(scene: Scene, *, mistaken: bool) -> None:
    """Or when there is a mistake in what takes its place: then the configuration in force goes on."""
    scene.start()
    with contextlib.closing(sqlite3.connect(Path(scene.agent.config["data_dir"]) / "checkpoint.db")) as shell:
        shell.execute("BEGIN IMMEDIATE")
        scene.config["outputs"]["main"]["headers"] = {"X-Turn": "2"}
        put(scene)
        scene.wait(lambda: "database is locked" in str(scene.notices()), "the change to be tried")
        if mistaken:
            scene.config["outputs"]["main"]["no such option"] = 1
        else:
            del scene.config["outputs"]["main"]["headers"]
        put(scene)
        shell.rollback()
    append(scene.logs / "a.log", "one")
    scene.expect("one")


def test_an_output_is_added_and_removed(scene: Scene, second: Backend) -> None:
    before = numbered("before", range(50))
    append(scene.logs / "a.log", *before)
    scene.start()
    scene.expect(*before)
    scene.config["outputs"]["more"] = {**scene.output(), "url": second.url()}
    change(scene)
    append(scene.logs / "a.log", "during")
    scene.expect(*before, "during")
    got: Counter[str] = Counter()
    wait_for(lambda: messages_of(second, got)["during"], "the second output", so_far=scene.agent.tail)
    del scene.config["outputs"]["more"]
    change(scene)
    append(scene.logs / "a.log", "after")
    scene.expect(*before, "during", "after")
    scene.restart()
    append(scene.logs / "a.log", "at last")
    scene.expect(*before, "during", "after", "at last")
    assert messages_of(second, got) == Counter([*before, "during"])


def places_of(scene: Scene, output: str) -> set[int]:
    """Where an output stands in the files of which that is on record."""
    database = f"file:{scene.agent.config['data_dir']}/checkpoint.db?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT offset FROM positions WHERE output = ?", (output,))}


def add_output(scene: Scene, backend: Backend) -> None:
    """Add an output while its backend is down; it is over when the reader has heard of it."""
    backend.behave("refuse")
    scene.config["outputs"]["more"] = {**scene.output(), "url": backend.url()}
    change(scene)
    scene.wait(lambda: places_of(scene, "more"), "its place to be on record")


@pytest.mark.parametrize("start_at", ["beginning", "end"])
def test_an_added_output_begins_where_it_was_added_if_the_agent_is_killed_then(
    scene: Scene, second: Backend, start_at: str
) -> None:
    """Nothing is written between, and the older output has delivered nothing of what it has read."""
    scene.source["start_at"] = start_at
    before, after = numbered("before", range(50)), numbered("after", range(50))
    log = scene.logs / "a.log"
    log.touch()
    scene.start()
    scene.backend.behave("stall")
    append(log, *before)
    scene.wait(lambda: scene.output_status()["unacked_blocks"], "the older output to have read it")
    add_output(scene, second)
    assert places_of(scene, "more") == {log.stat().st_size if start_at == "end" else 0}
    scene.kill()
    append(log, *after)
    for backend in (scene.backend, second):
        backend.behave()
    scene.start()
    scene.expect(*before, *after)
    wanted = Counter([*before, *after] if start_at == "beginning" else after)
    got: Counter[str] = Counter()
    wait_for(lambda: messages_of(second, got) >= wanted, "the second output", so_far=scene.agent.tail)
    append(log, "end")
    wait_for(lambda: messages_of(second, got)["end"], "the last line", so_far=scene.agent.tail)
    assert got == wanted + Counter(["end"])


@pytest.mark.parametrize("start_at", ["beginning", "end"])
def test_an_added_output_begins_where_it_was_added_in_a_file_that_is_only_drained(
    scene: Scene, second: Backend, start_at: str
) -> None:
    """The file is read on before any other; the older output delivers that, and the agent is killed."""
    scene.source["start_at"] = start_at
    before, after = numbered("before", range(50)), numbered("after", range(50))
    log = scene.logs / "a.log"
    log.touch()
    scene.start()
    with log.open("a") as writer:
        writer.write("".join(f"{line}\n" for line in before))
        writer.flush()
        scene.expect(*before)
        log.rename(scene.logs / "a.log.1")
        scene.wait(lambda: scene.files()[0]["state"] == "draining", "it to be only drained")
        add_output(scene, second)
        writer.write("".join(f"{line}\n" for line in after))
        writer.flush()
        scene.expect(*before, *after)
        scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "the older output to have committed it")
        scene.kill()
        second.behave()
        scene.start()
        wanted = Counter([*before, *after] if start_at == "beginning" else after)
        got: Counter[str] = Counter()
        wait_for(lambda: messages_of(second, got) >= wanted, "the second output", so_far=scene.agent.tail)
    scene.wait(lambda: not scene.files(), "the file to be over")
    messages_of(second, got)
    assert got == wanted
    scene.expect(*before, *after)
    assert scene.agent.answer("audit")["sources"]


def test_a_hanging_output_is_replaced(scene: Scene, second: Backend) -> None:
    scene.backend.behave("stall")
    append(scene.logs / "a.log", "one")
    scene.config["outputs"]["main"]["timeout"] = "3s"
    scene.start()
    scene.wait(lambda: scene.backend.stats()["refused"] >= 1, "a request that hangs")
    scene.config["outputs"]["main"]["url"] = second.url()
    change(scene)
    append(scene.logs / "a.log", "two")
    got: Counter[str] = Counter()
    wait_for(lambda: messages_of(second, got) >= Counter(["one", "two"]), "both lines", so_far=scene.agent.tail)
    assert got == Counter(["one", "two"])


@pytest.mark.parametrize("broken", ["{", "sources: {app: {type: fil}}", "\x00\xff", "", "gone"])
def test_a_broken_configuration_changes_nothing_and_is_told(scene: Scene, broken: str) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    path = scene.agent.config_path
    if broken == "gone":
        path.unlink()
    else:
        path.write_bytes(broken.encode("latin-1"))
    scene.poke()
    scene.wait(lambda: str(path) in scene.notices(), "the notice")
    append(scene.logs / "a.log", "two")
    scene.expect("one", "two")
    assert scene.agent.get("/healthz")[0] == 200
    scene.source["fields"] = {"corrected": True}
    change(scene)
    append(scene.logs / "a.log", "three")
    scene.expect("one", "two", "three")
    assert str(path) not in scene.notices()


def test_an_output_that_can_not_be_built_stops_no_other(scene: Scene) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    scene.expect("one")
    state = Path(scene.agent.config["data_dir"])
    (state / "spool").mkdir(exist_ok=True)
    (state / "spool" / "more").write_text("a file stands where the spool's directory should be")
    scene.config["outputs"]["more"] = {**scene.output(), "url": scene.backend.url("/more")}
    put(scene)
    scene.wait(lambda: "more" in scene.agent.get("/status")[1], "the change to show")
    append(scene.logs / "a.log", "two")
    scene.wait(lambda: "two" in scene.messages(), "the output beside it")
