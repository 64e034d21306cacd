"""Starts, stops and kills at the worst moments."""

import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
from functools import partial

import pytest

from tests.hostile.scene import Scene, append, numbered
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer

KILLS = int(os.environ.get("HOSTAGENT_HOSTILE_KILLS", "12"))


def test_a_stop_while_the_first_scan_goes_on(scene: Scene) -> None:
    for number in range(60):
        folder = scene.logs / f"d{number}"
        folder.mkdir()
        for file in range(100):
            (folder / f"{file}.log").write_text(f"{number} {file}\n")
    scene.source["include"] = [f"{scene.logs}/*/*.log"]
    for _ in range(3):
        scene.agent.start()
        wait_for((scene.agent.directory / "api.sock").exists, "the agent to be up")
        assert scene.agent.stop() in {0, -signal.SIGTERM}
        (scene.agent.directory / "api.sock").unlink(missing_ok=True)
    scene.start()
    wanted = {f"{number} {file}" for number in range(60) for file in range(100)}
    scene.wait(lambda: wanted <= set(scene.messages()), "every line")
    assert len(scene.messages()) == len(wanted)


@pytest.mark.parametrize("behaviour", ["refuse", "stall"])
def test_a_stop_with_the_backend_down_ends_in_time_and_loses_nothing(scene: Scene, behaviour: str) -> None:
    scene.config["outputs"]["main"]["timeout"] = "10m"
    scene.backend.behave(behaviour)
    lines = numbered("a", range(3000))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.wait(lambda: scene.output_status()["unacked_blocks"] or scene.output_status()["spooled_blocks"], "blocks")
    # Neither an answer nor the end of a request's own time will come so soon: only `stop_timeout` can end this.
    assert scene.agent.stop(timeout_s=60) == 0
    scene.backend.behave()
    scene.start()
    scene.expect(*lines)


def test_signals_in_a_row_change_nothing(scene: Scene) -> None:
    append(scene.logs / "a.log", "one")
    scene.start()
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGIO, signal.SIGHUP):
        scene.agent.signal(number)
    append(scene.logs / "a.log", "two")
    scene.expect("one", "two")
    scene.agent.signal(signal.SIGTERM)
    scene.agent.signal(signal.SIGINT)
    assert scene.agent.stop() == 0


def test_kill_9_at_any_moment_under_load_with_rotation(scene: Scene) -> None:
    rng = random.Random(11)
    oracle = Oracle()
    scene.source["include"] = [f"{scene.logs}/*.log*"]
    scene.source["exclude"] = ["*.gz"]
    rotations = ("rename", "copytruncate", "rename_late_reopen", "hard_link")
    load = Load(str(scene.logs), streams=4, bytes_per_s=400_000, storm_per_s=4, rotations=rotations, seed=5)
    with Writer(load) as writer:
        for _ in range(KILLS):
            scene.agent.start()
            seen = scene.backend.stats()["requests"]
            enough = seen + rng.randrange(0, 10)
            if rng.random() < 0.3:
                scene.backend.behave("stored_then_reset", times=1)
            wait_for(lambda enough=enough: scene.backend.stats()["requests"] >= enough, "requests")  # type: ignore[misc]
            scene.kill()
        scene.backend.behave()
        scene.start()
        written = writer.stop()
    scene.expect_all(oracle, written, timeout_s=60)
    assert scene.backend.stats()["violation"] == 0


@pytest.mark.requires(root=True, tools=["setpriv"])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_file_that_may_not_be_read_after_a_restart_is_no_loss_while_it_is_there(
    scene: Scene, *, deleted: bool
) -> None:
    """As after a logrotate that made it 0600; uid 0 without its capabilities stands for the agent's user."""
    caps = "-dac_override,-dac_read_search"
    scene.agent.wrapper = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]
    log = scene.logs / "a.log"
    append(log, "one", "two")
    scene.start()
    scene.expect("one", "two")
    assert scene.agent.stop() == 0
    append(log, "three")
    os.chown(log, 65534, 65534)
    log.chmod(0o600)
    scene.start()
    wait_for(lambda: "Permission denied" in scene.notices().get(str(log), []), "the notice", so_far=scene.agent.tail)
    assert scene.agent.answer("audit", "--losses")["losses"] == []
    run = scene.agent.call("explain", str(log))
    assert "Permission denied" in run.stdout, run.stderr
    if deleted:
        log.unlink()
        scene.wait(scene.losses, "the ledger")
        assert scene.losses() == [("a.log", len("one\ntwo\n"), None, "deleted")]
    else:
        log.chmod(0o644)
        scene.expect("one", "two", "three")
        assert scene.losses() == []


def test_no_block_is_in_flight_of_a_file_whose_beginning_is_not_on_record(scene: Scene) -> None:
    """Else a start after a crash would neither see that it was rewritten since, nor find the copy of what it was."""
    scene.config["outputs"]["main"]["block"]["max_bytes"] = "16KiB"

    def arrived(count: int) -> bool:
        return len(scene.take()) == count

    paths = [scene.logs / f"{number}.log" for number in range(4)]
    for path in paths:
        path.touch()
    scene.start()
    database = f"file:{scene.agent.config['data_dir']}/checkpoint.db?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
        query = "SELECT (SELECT count(*) FROM inflight), count(*), sum(fingerprint_length > 0) FROM files"
        wait_for(lambda: connection.execute(query).fetchone()[1] == len(paths), "the empty files to have rows")
        for begun, path in enumerate(paths, start=1):
            append(path, *numbered(path.name, range(100_000)))  # more than one turn takes
            blocks = known = 0
            while not blocks and known < begun:
                blocks, _, known = connection.execute(query).fetchone()
            assert known == begun
            wait_for(partial(arrived, begun * 100_000), "the lines")
            wait_for(lambda: connection.execute(query).fetchone()[0] == 0, "no block to be in flight")


@pytest.mark.parametrize("fresh", [100, 20_000], ids=["shorter", "longer"])
@pytest.mark.parametrize("copy", ["a.1.log", "a.log.1"], ids=["wanted", "not wanted"])
def test_what_was_in_flight_of_a_log_that_always_begins_the_same_is_found_in_its_copy(
    scene: Scene, *, fresh: int, copy: str
) -> None:
    """Copied and truncated while nobody looked: its first lines, and all that was committed, are there again."""
    banner, before, after = "=" * 2000, numbered("before", range(3000)), numbered("after", range(fresh))
    log = scene.logs / "a.log"
    append(log, banner)
    scene.start()
    scene.expect(banner)
    scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "the banner to be committed")
    scene.backend.behave("stored_then_reset")
    append(log, *before)
    scene.wait(lambda: len(scene.messages()) > 1, "a block in flight that is stored")
    scene.kill()
    shutil.copyfile(log, scene.logs / copy)
    os.truncate(log, 0)
    append(log, banner, *after)
    scene.backend.behave()
    scene.start()
    scene.expect(banner, *before, banner, *after)
    assert {reason for *_, reason in scene.losses()} <= {"copytruncate"}


@pytest.mark.parametrize("copy, committed", [("a.1.log", True), ("a.log.1", False)])
def test_what_was_in_flight_is_found_in_a_copy_made_while_the_agent_starts(
    scene: Scene, *, copy: str, committed: bool
) -> None:
    """Its logs are open, but it cuts and reads nothing before a container runtime has told what there is."""
    first = numbered("first", range(100)) if committed else []
    before, after = numbered("before", range(3000)), numbered("after", range(500))
    log = scene.logs / "a.log"
    append(log, *first)
    scene.start()
    scene.expect(*first)
    scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "them to be committed")
    scene.backend.behave("stored_then_reset")
    append(log, *before)
    scene.wait(lambda: len(scene.messages()) > len(first), "a block in flight that is stored")
    scene.kill()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as runtime:
        runtime.bind(f"{scene.directory}/docker.sock")
        runtime.listen()
        sockets = [f"docker://{scene.directory}/docker.sock"]
        scene.config["sources"]["boxes"] = {"type": "containers", "runtimes": sockets}
        scene.agent.config.update(scene.config)
        scene.agent.start()
        wait_for(
            lambda: log.stat().st_ino in scene.agent.open_inodes(), "the log to be opened", so_far=scene.agent.tail
        )
        shutil.copyfile(log, scene.logs / copy)
        os.truncate(log, 0)
        append(log, *after)
        scene.backend.behave()
    scene.expect(*first, *before, *after)
    assert {reason for *_, reason in scene.losses()} <= {"copytruncate"}


def test_a_log_that_has_lost_what_was_in_flight_goes_on_where_it_is(scene: Scene) -> None:
    """As after a power cut that took the end of the log: no copy of it is anywhere."""
    first, cut, more = numbered("first", range(100)), numbered("cut", range(100)), numbered("more", range(300))
    log = scene.logs / "a.log"
    append(log, *first)
    scene.start()
    scene.expect(*first)
    scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "them to be committed")
    size = log.stat().st_size
    scene.backend.behave("stall")
    append(log, *cut)
    scene.wait(lambda: scene.output_status()["unacked_blocks"], "a block in flight")
    scene.kill()
    os.truncate(log, size)
    append(log, *more)
    scene.backend.behave()
    scene.start()
    scene.expect(*first, *more)
