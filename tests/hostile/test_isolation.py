"""One bad file, plugin, output or neighbour never stops another."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from hostagent.tail.files.copies import MOST
from tests.hostile.scene import Scene, append, numbered
from tests.support.lines import make_line
from tests.support.oracle import Oracle
from tests.support.packages import install_metadata, install_module, seen_by_agents
from tests.support.streams import LogStream

PLUGIN = Path(__file__).parent / "trap_plugin" / "hostagent_trap"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin package, installed where the agent finds it."""
    site = tmp_path / "site"
    shutil.copytree(PLUGIN, site / "hostagent_trap", ignore=shutil.ignore_patterns("__pycache__"))
    install_metadata(site, "hostagent_trap", {"trap": "hostagent_trap"})
    seen_by_agents(site, monkeypatch)


def suspended(scene: Scene) -> set[str]:
    return {os.path.basename(file["path"]) for file in scene.files() if file["state"] == "suspended"}


@pytest.mark.usefixtures("trap")
def test_a_processor_that_fails_on_one_file_suspends_that_file_only(scene: Scene) -> None:
    scene.source["processors"] = [{"type": "trap"}]
    append(scene.logs / "good.log", "one")
    append(scene.logs / "bad.log", "BOOM")
    scene.start()
    scene.expect("one")
    scene.wait(lambda: suspended(scene) == {"bad.log"}, "the file to be suspended")
    append(scene.logs / "bad.log", "more")
    append(scene.logs / "good.log", "two")
    scene.expect("one", "two")
    assert "ZeroDivisionError" in str(scene.notices()[str(scene.logs / "bad.log")])
    assert scene.agent.get("/healthz")[0] == 200
    # Its position has stayed: with a processor that can, it is read from there.
    assert scene.agent.stop() == 0
    del scene.source["processors"]
    scene.start()
    scene.expect("one", "two", "BOOM", "more")


@pytest.mark.usefixtures("trap")
def test_a_processor_that_fails_on_an_unfinished_line(scene: Scene) -> None:
    scene.source.update(processors=[{"type": "trap"}], flush_partial_after="100ms")
    (scene.logs / "bad.log").write_text("BOOM without an end")
    append(scene.logs / "good.log", "one")
    scene.start()
    scene.wait(lambda: suspended(scene) == {"bad.log"}, "the file to be suspended")
    append(scene.logs / "good.log", "two")
    scene.expect("one", "two")


@pytest.mark.usefixtures("trap")
def test_a_processor_that_fails_on_the_last_record_of_a_rotated_file(scene: Scene) -> None:
    scene.source.update(processors=[{"type": "trap"}], multiline={"start": "^[A-Z]", "flush_after": "1h"})
    bad = scene.logs / "bad.log"
    append(bad, "Good", "Begin", " BOOM")
    append(scene.logs / "good.log", "One", "Two", "Three")
    scene.start()
    scene.expect("Good", "One", "Two")
    bad.rename(scene.logs / "bad.log.1")
    append(bad, " the rest", "Next", "Last")
    scene.wait(scene.notices, "the file to be told of")
    append(scene.logs / "good.log", "Four")
    scene.wait(lambda: "Three" in scene.messages(), "the file beside it")


@pytest.mark.usefixtures("trap")
def test_a_processor_that_fails_on_blocks_in_flight_does_not_keep_the_agent_from_starting(scene: Scene) -> None:
    armed = scene.directory / "armed"
    scene.source["processors"] = [{"type": "trap", "only_if": str(armed)}]
    append(scene.logs / "bad.log", "BOOM")
    append(scene.logs / "good.log", "one")
    scene.backend.behave("stall")
    scene.start()
    scene.wait(lambda: scene.backend.stats()["refused"] >= 1, "a block on its way")
    scene.kill()
    armed.touch()
    scene.backend.behave()
    scene.start()
    scene.wait(lambda: suspended(scene) == {"bad.log"}, "the file to be suspended")
    append(scene.logs / "good.log", "two")
    scene.expect("one", "two")


@pytest.mark.usefixtures("trap")
def test_an_output_that_hangs_for_ever_holds_up_nobody_and_no_stop(scene: Scene) -> None:
    scene.config["outputs"]["abyss"] = {"type": "abyss", "block": {"max_bytes": "16KiB"}}
    scene.config["limits"]["chunk_bytes"] = "16KiB"  # or all of them fit into what an output may hold
    lines = numbered("a", range(5000))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    append(scene.logs / "a.log", "more")
    scene.expect(*lines, "more")
    assert scene.agent.stop() == 0


def test_a_flood_in_one_file_lets_the_quiet_ones_through(scene: Scene) -> None:
    total = 80_000
    flood = b"".join(make_line("flood", 0, seq, 0, 500, plain=True) for seq in range(total))
    (scene.logs / "flood.log").write_bytes(flood)
    scene.backend.behave("slow", delay_s=2.0)  # or it would be over before the quiet ones are written
    scene.start()
    scene.wait(lambda: scene.metric("hostagent_source_read_records_total") > 0, "the flood to be read")
    quiet = [f"quiet {number}" for number in range(50)]
    for number, line in enumerate(quiet):
        append(scene.logs / f"quiet{number}.log", line)
    scene.backend.behave()
    arrived, before = 0, {}
    while arrived < total + len(quiet):
        fresh = list(scene.wait(lambda: list(scene.backend.new_arrivals()), "arrivals"))
        for arrival in fresh:
            for record in arrival.records():
                arrived += 1
                if record["message"].startswith("quiet"):
                    before[record["message"]] = arrived
    assert sorted(before) == sorted(quiet)
    # Judged by order, not by the clock: when the last quiet line came, most of the flood was still to come.
    assert max(before.values()) < total * 0.8, max(before.values())


def test_two_thousand_files_at_once(scene: Scene) -> None:
    scene.start()
    for number in range(2000):
        append(scene.logs / f"f{number}.log", f"line {number}")
    scene.expect(*(f"line {number}" for number in range(2000)))
    scene.kill()
    for number in range(0, 2000, 100):
        append(scene.logs / f"f{number}.log", f"again {number}")
    scene.start()
    scene.expect(*(f"line {n}" for n in range(2000)), *(f"again {n}" for n in range(0, 2000, 100)))


def test_two_hundred_active_files_with_twenty_descriptors(scene: Scene) -> None:
    scene.config["limits"]["max_open_files"] = 20
    streams = [LogStream(scene.logs, f"s{number}") for number in range(200)]
    oracle = Oracle()
    for stream in streams:
        stream.write(3)
    scene.start()
    for turn in range(6):
        for number, stream in enumerate(streams):
            stream.write(5)
            if turn % 2 and number % 4 == 0:
                stream.rename(reopen=False)  # its writer stays on the renamed file
                stream.write(2)
                stream.reopen()
    written = {stream.name: stream.next_seq for stream in streams}
    scene.expect_all(oracle, written)
    assert suspended(scene) == set()
    for stream in streams:
        stream.close()


def test_more_rotated_files_held_by_their_writers_than_descriptors(scene: Scene) -> None:
    scene.config["limits"]["max_open_files"] = 5
    streams = [LogStream(scene.logs, f"s{number}") for number in range(12)]
    oracle = Oracle()
    for stream in streams:
        stream.write(3)
    scene.start()
    written = {stream.name: 3 for stream in streams}
    scene.expect_all(oracle, written)
    for stream in streams:
        stream.rename(reopen=False)
        stream.write(2)  # the file has no wanted name any more, and a writer still
    append(scene.logs / "new.log", "fresh")
    written = {stream.name: 5 for stream in streams}
    found = []

    def complete() -> bool:
        for arrival in scene.backend.new_arrivals():
            for record in arrival.records():
                found.append(record["message"]) if record["message"] == "fresh" else oracle.take_message(
                    record["message"]
                )
        return oracle.complete(written) and found == ["fresh"]

    scene.wait(complete, "every line")
    append(scene.logs / "new.log", "fresh")
    scene.wait(lambda: complete() or len(found) == 2, "the new file")
    assert suspended(scene) == set()
    for stream in streams:
        stream.close()


def test_more_events_than_the_kernel_queues(scene: Scene) -> None:
    scene.config["limits"]["rescan_interval"] = "1h"
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    append(scene.logs / "known.log", "one")
    scene.start()
    scene.expect("one")
    with scene.agent.halted():
        noise = scene.logs / "noise"
        for number in range(queued):
            noise.rename(scene.logs / "noise.new") if number % 2 else os.close(os.open(noise, os.O_CREAT | os.O_WRONLY))
            (scene.logs / "noise.new").unlink(missing_ok=True)
        append(scene.logs / "known.log", "two")
        append(scene.logs / "new.log", "three")
    scene.expect("one", "two", "three")
    assert scene.metric("hostagent_watcher_overflows_total") >= 1


@pytest.mark.parametrize(
    "query, told",
    [
        ("/explain?path=%00", "no path has a NUL in it"),
        ("/explain?path=", "no include pattern of any source matches it"),
        ("/explain", "no include pattern of any source matches it"),
        ("/files?limit=x&source=%FF", '"files":[]'),
    ],
)
def test_odd_questions_do_not_end_the_agent(scene: Scene, query: str, told: str) -> None:
    scene.start()
    status, answer = scene.agent.get(query)
    assert (status, told in answer) == (200, True), answer
    append(scene.logs / "a.log", "still here")
    scene.expect("still here")


def test_clients_of_the_api_that_never_ask_do_not_lock_others_out(scene: Scene) -> None:
    scene.start()
    idle = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(scene.agent.directory / "api.sock"))
        client.send(b"GET /sta")
        idle.append(client)
    assert scene.agent.get("/healthz")[0] == 200
    for client in idle:
        client.close()


def test_names_that_may_be_copies_are_watched_in_bounded_number(scene: Scene) -> None:
    """They are looked at every second: enough of them would keep the agent busy with nothing else."""
    line = "what every one of them begins with"
    append(scene.logs / "a.log", line, line, "last")
    scene.start()
    scene.expect(line, line, "last")
    for number in range(MOST + 50):
        append(scene.directory / "aside", line)
        (scene.directory / "aside").rename(scene.logs / f"a-{number}.log")

    def come() -> bool:
        watched = [said for told in scene.notices().values() for said in told if "looks like a copy" in said]
        assert len(watched) <= MOST
        return scene.messages().count(line) >= 2 + 50

    scene.wait(come, "those beyond the bound")


# An encoder that fails on the first record that has both of these words.
FUSSY = """
from hostagent.hookspecs import Component, hookimpl
from hostagent.process.ndjson import NdjsonEncoder, NdjsonOptions

class Fussy(NdjsonEncoder):
    failed = False

    def encode(self, batch, observed_ns):
        encoded = super().encode(batch, observed_ns)
        if not self.failed and b"Begins" in encoded.payload and b"and on" in encoded.payload:
            self.failed = True
            raise RuntimeError("too much at once")
        return encoded

@hookimpl
def hostagent_register_encoders():
    return {"fussy": Component(NdjsonOptions, lambda _options, _wiring: Fussy())}
"""


def test_an_encoder_that_fails_on_a_record_across_a_rotation_costs_nothing(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(tmp_path / "site", "fussy", FUSSY)
    seen_by_agents(tmp_path / "site", monkeypatch)
    scene.config["outputs"]["main"]["encoding"] = "fussy"
    scene.source.update({"multiline": {"start": "^[A-Z]", "flush_after": "60s"}, "close_grace": "5s"})
    path = scene.logs / "app.log"
    append(path, "Whole", "Begins", "  goes on")
    scene.start()
    scene.expect("Whole")
    path.rename(scene.logs / "app.log.1")
    append(path, "  and on", "Next", "Last")
    scene.expect("Whole", "  and on", "Next")
    assert any("no longer read" in said for told in scene.notices().values() for said in told)
    scene.config["outputs"]["main"]["encoding"] = "ndjson"
    scene.restart()
    scene.expect("Whole", "Begins\n  goes on", "  and on", "Next")
