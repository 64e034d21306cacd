"""What was found damaged or got lost stands in the agent's log, for those who come when `status` shows it no more."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, logs_to_http
from tests.support.backend import Backend
from tests.support.waiting import wait_for


@pytest.fixture
def agent(tmp_path: Path, logs: Path, backend: Backend) -> Iterator[Agent]:
    config = logs_to_http(logs, backend.url())
    config["sources"]["app"]["close_grace"] = "100ms"
    with Agent(tmp_path / "agent", config) as one:
        yield one


def started(agent: Agent) -> None:
    agent.start()
    agent.wait_ready()


def test_the_log_says_when_the_agent_is_ready_and_where_its_state_is(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text("a line\n")
    started(agent)
    wait_for(lambda: "is ready, following 1 files" in agent.tail(), "the log to say so", so_far=agent.tail)
    assert f"its state is in {agent.directory}/state" in agent.tail()


def test_a_damaged_database_is_told_once(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text("a line\n")
    started(agent)
    assert agent.stop() == 0
    for name in ("checkpoint.db", "checkpoint.db.backup"):
        (agent.directory / "state" / name).write_bytes(b"no database\n" * 500)
    started(agent)
    wait_for(lambda: "it was damaged" in agent.tail(), "the log to say so", so_far=agent.tail)
    assert agent.stop() == 0  # which looks once more
    assert agent.log.read_text().count("it was damaged") == 1


def test_losses_are_told_and_listed_with_file_range_and_reason(agent: Agent, logs: Path, backend: Backend) -> None:
    odd = os.fsdecode(bytes(logs) + b"/\x1b[2J\xff.log")
    Path(odd).write_text("a line\n")
    started(agent)
    wait_for(lambda: backend.stats()["stored"] == 1, "the line to arrive", so_far=agent.tail)
    assert agent.stop() == 0
    with Path(odd).open("a") as file:
        file.write("nobody reads this\n")
    os.unlink(odd)
    started(agent)
    wait_for(lambda: "source app: 1 more in the loss ledger" in agent.tail(), "the log", so_far=agent.tail)
    run = agent.call("audit", "--losses")
    assert run.returncode == 0, run.stdout
    (row,) = [line for line in run.stdout.splitlines() if "\\x1b[2J\\xff.log" in line]
    assert row.split()[2:7] == ["app", "all", "deleted", "7", "unknown"]
    report = agent.answer("audit", "--losses")
    (loss,) = report["losses"]
    assert (loss["source"], loss["reason"], loss["start"], loss["end"]) == ("app", "deleted", 7, None)
    assert agent.answer("audit")["losses"] == []
    assert agent.answer("audit", "--losses", "--source", "app")["losses"] == [loss]


def test_the_age_of_what_waits_in_the_spool_is_the_outputs_lag(agent: Agent, logs: Path, backend: Backend) -> None:
    backend.behave("refuse")
    (logs / "a.log").write_text("a line\n")
    started(agent)
    agent.wait_spooled()
    assert agent.output()["lag_s"] > 0
    backend.behave("healthy")
    agent.try_now()
    wait_for(lambda: agent.output()["lag_s"] is None, "the spool to be drained", so_far=agent.tail)
    assert "0 B of" in agent.call("status").stdout


def test_a_backend_that_refuses_everything_is_not_told_with_every_block(
    agent: Agent, logs: Path, backend: Backend
) -> None:
    backend.behave("status", status=422)
    agent.config["outputs"]["main"]["block"] = {"max_wait": "10ms"}
    started(agent)
    count = 0

    def refused() -> int:
        nonlocal count
        count += 1
        with (logs / "a.log").open("a") as file:
            file.write("a line\n" * count)
        return int(backend.stats()["refused"])

    wait_for(lambda: refused() >= 5, "five blocks to be refused", poll_s=0.1)
    assert agent.stop() == 0
    assert agent.log.read_text().count("refused for good") <= 2  # one each half minute


def test_dead_letters_in_status_are_those_that_are_kept(agent: Agent, logs: Path, backend: Backend) -> None:
    backend.behave("status", status=422)
    (logs / "a.log").write_text("a line\n")
    started(agent)
    wait_for(lambda: agent.output()["dead_letters"] == 1, "the dead letter", so_far=agent.tail)
    assert agent.stop() == 0
    started(agent)
    assert agent.answer("status")["outputs"][0]["dead_letters"] == 1


@pytest.mark.parametrize(
    "name, make, told",
    [
        ("checkpoint.db", lambda path: path.symlink_to("/nowhere/at/all"), "leads nowhere: mend it or remove it"),
        ("checkpoint.db", Path.mkdir, "a directory stands where a file is needed"),
        ("lock", Path.mkdir, "a directory stands where a file is needed"),
        ("lock", lambda path: path.symlink_to("/nowhere/at/all"), "a symbolic link stands there"),
    ],
)
def test_what_stands_in_the_way_of_the_state_is_told_with_what_to_do(
    agent: Agent, name: str, make: Callable[[Path], None], told: str
) -> None:
    state = agent.directory / "state"
    state.mkdir()
    make(state / name)
    for command in (["run", "--once"], ["audit"]):
        if (name, command) == ("lock", ["audit"]):
            continue
        run = agent.call(*command)
        assert (run.returncode, run.stderr.count("\n")) == (1, 1), run.stderr
        assert str(state / name) in run.stderr
        assert told in run.stderr


def test_a_quarantine_that_is_no_directory_is_named(agent: Agent) -> None:
    state = agent.directory / "state"
    state.mkdir()
    (state / "checkpoint.db").write_bytes(b"no database\n" * 500)
    (state / "quarantine").write_text("in the way")
    run = agent.call("run", "--once")
    assert (run.returncode, f"{state}/quarantine" in run.stderr) == (1, True), run.stderr
    assert "move it away" in run.stderr


def test_damaged_dead_letters_are_told_in_words(agent: Agent) -> None:
    box = agent.directory / "state" / "dead-letters" / "main"
    box.mkdir(parents=True)
    (box / "000000000001-0123456789abcdef.seg").write_bytes(os.urandom(5000))
    started(agent)
    wait_for(lambda: "can't be read (it is in the ledger" in agent.tail(), "the log", so_far=agent.tail)
    assert "- to main: 1 losses of unknown size" in agent.call("audit").stdout


def test_a_file_where_a_spool_should_be_is_told_with_what_to_do(agent: Agent, logs: Path, backend: Backend) -> None:
    (agent.directory / "state" / "spool").mkdir(parents=True)
    (agent.directory / "state" / "spool" / "main").write_text("in the way")
    started(agent)
    wait_for(lambda: "a file stands where a directory is needed" in agent.tail(), "the log", so_far=agent.tail)
    (logs / "a.log").write_text("a line\n")
    wait_for(lambda: backend.stats()["stored"] == 1, "the line to arrive all the same", so_far=agent.tail)


def test_a_full_spool_and_what_it_drops_are_told_with_the_option_to_change(
    agent: Agent, logs: Path, backend: Backend
) -> None:
    backend.behave("refuse")
    agent.config["limits"]["chunk_bytes"] = "16KiB"
    main = agent.config["outputs"]["main"]
    main |= {"compression": "none", "block": {"max_bytes": "64KiB"}, "spool": {"max_bytes": "3MiB", "reserve_bytes": 0}}
    (logs / "a.log").write_text("a line of thirty-two characters\n" * 60_000)
    started(agent)

    def full() -> bool:
        return any("spool.max_bytes" in one["message"] for one in agent.status()["notices"])

    wait_for(full, "the spool to be full", so_far=agent.tail)
    (notice,) = [one for one in agent.answer("status")["notices"] if one["subject"] == "spool main"]
    assert "change that option" in notice["hint"]
    assert agent.stop() == 0
    assert "spool main: it is full" in agent.log.read_text()
    main["spool"]["when_full"] = "drop_oldest"
    started(agent)
    wait_for(lambda: agent.status()["sources"][0]["lost_bytes"], "the ledger", so_far=agent.tail)
    assert agent.stop() == 0
    assert "spool_dropped (see `audit --losses`; raise spool.max_bytes)" in agent.log.read_text()


def test_what_waits_for_an_output_that_was_renamed_is_told_until_it_is_named_again(
    agent: Agent, logs: Path, backend: Backend
) -> None:
    backend.behave("refuse")
    (logs / "a.log").write_text("a line\n")
    started(agent)
    agent.wait_spooled()
    outputs = agent.config["outputs"]
    agent.config["outputs"] = {"renamed": outputs["main"]}

    def told() -> list[str]:
        return [one["message"] for one in agent.status()["notices"] if one["subject"] == "spool main"]

    agent.command("check")  # writes the configuration anew
    agent.try_now()
    wait_for(lambda: told() != [], "the notice", so_far=agent.tail)
    assert told() == ["1 blocks wait in it for an output that is not in the configuration any more"]
    (segment,) = (agent.directory / "state" / "spool" / "main").glob("*.seg")
    run = agent.call("spool", "replay", str(segment))
    assert (run.returncode, "name it there again, or another one with --output" in run.stderr) == (1, True)
    backend.behave("healthy")
    assert agent.answer("spool", "replay", str(segment), "--output", "renamed")["sent"] == 1
    agent.config["outputs"] = outputs
    agent.command("check")
    agent.try_now()
    wait_for(lambda: not told() and not agent.answer("spool", "ls", "main"), "the spool to be drained")


def test_a_change_that_waits_for_a_restart_and_one_that_is_taken_back_are_told(agent: Agent) -> None:
    started(agent)
    for change, told in (
        ({"limits": {"stop_timeout": "2s"}}, "`limits` has changed, which only a restart takes over"),
        ({"limits": {"stop_timeout": "1s"}}, "is the one that is in force again"),
        ({"outputs": {}}, "is not taken over"),
    ):
        agent.config |= change
        agent.command("check")
        agent.try_now()
        wait_for(lambda told=told: told in agent.tail(), told, so_far=agent.tail)  # type: ignore[misc]


def test_an_agent_that_is_stopping_is_not_called_stuck(agent: Agent, logs: Path, backend: Backend) -> None:
    agent.config["limits"]["stop_timeout"] = "1m"  # longer than anybody takes to ask it
    backend.behave("stall")
    (logs / "a.log").write_text("a line\n")
    started(agent)
    wait_for(lambda: backend.stats()["requests"] > 0, "a request", so_far=agent.tail)
    agent.signal(signal.SIGTERM)
    wait_for(lambda: not agent.ready(), "the stop to begin")
    told = [one["message"] for one in agent.answer("status")["notices"]]
    assert [one for one in told if "the agent is stopping" in one]
    assert "does not answer" not in told
    agent.kill()
