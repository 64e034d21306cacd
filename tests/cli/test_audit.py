"""`audit` finds every byte, beside a running agent and after it died, and says so when one can't be found."""

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent, logs_to_http
from tests.support.backend import Backend
from tests.support.waiting import wait_for

LINE = "a line of thirty-two characters\n"
MIB = 1024 * 1024


@pytest.fixture
def agent(tmp_path: Path, logs: Path, backend: Backend) -> Iterator[Agent]:
    config = logs_to_http(logs, backend.url())
    config["limits"]["chunk_bytes"] = "64KiB"
    config["outputs"]["copy"] = {"type": "blackhole", "spool": {"reserve_bytes": 0}}
    with Agent(tmp_path / "agent", config) as one:
        yield one


def audit(agent: Agent, *arguments: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = agent.answer("audit", *arguments, code=code)
    assert report["balanced"] is (code == 0)
    for one in report["sources"] + report["files"]:
        account = one["account"]
        parts = sum(bytes_ for name, bytes_ in account.items() if name not in {"written", "passed_over"})
        assert account["written"] == parts, one
    return report


def headings(report: dict[str, Any], output: str) -> dict[str, int]:
    """The headings of the one source that are not 0, `written` last; none while nothing is known of the output."""
    accounts = [one["account"] for one in report["sources"] if one["output"] == output]
    assert len(accounts) < 2
    return {name: bytes_ for account in accounts for name, bytes_ in account.items() if bytes_}


def settled(agent: Agent, output: str, **wanted: int) -> dict[str, Any]:
    """The report once an output's headings are these."""
    latest: dict[str, Any] = {}
    agent.wait_ready()

    def is_so() -> bool:
        run = agent.call("audit", "--json", "--files")
        latest.update(json.loads(run.stdout))
        return bool(latest["sources"]) and headings(latest, output) == wanted

    wait_for(is_so, f"{output} to be at {wanted}", so_far=lambda: f"{latest}\n{agent.tail()}")
    return latest


def database(agent: Agent) -> sqlite3.Connection:
    return sqlite3.connect(agent.directory / "state" / "checkpoint.db", isolation_level=None)


def leave_lines_in_their_file(agent: Agent, backend: Backend, logs: Path) -> None:
    """A hundred lines that one output has had and `main` has not, neither sent nor spooled; the agent is dead."""
    backend.behave("refuse")
    agent.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    settled(agent, "copy", written=3200, delivered=3200)
    agent.kill()


def test_all_is_delivered_while_the_agent_runs_and_after(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text(LINE * 1000)
    (logs / "b.log").write_text(LINE * 10 + "no end yet")
    agent.start()
    done = {"written": 32330, "delivered": 32320, "waiting": 10}
    report = settled(agent, "main", **done)
    assert report["running"] is True
    assert {(file["path"], file["output"], file["account"]["delivered"]) for file in report["files"]} == {
        (f"{logs}/{name}", output, size)
        for name, size in (("a.log", 32000), ("b.log", 320))
        for output in ("main", "copy")
    }
    settled(agent, "copy", **done)
    assert agent.stop() == 0
    before = sorted(os.listdir(agent.directory / "state"))
    assert headings(audit(agent), "main") == done
    assert sorted(os.listdir(agent.directory / "state")) == before, "looking leaves nothing behind"
    text = agent.call("audit", "--files").stdout
    assert "every byte is accounted for (no agent is running)" in text
    assert f"{logs}/b.log" in text


def test_what_waits_for_a_backend_is_spooled_or_in_its_file_also_after_kill(
    agent: Agent, backend: Backend, logs: Path
) -> None:
    backend.behave("refuse")
    agent.config["outputs"]["main"]["spool"] = {"max_bytes": "2MiB", "reserve_bytes": 0}
    agent.config["outputs"]["main"].update(compression="none", block={"max_bytes": "32KiB"})
    (logs / "a.log").write_text(LINE * 32768)
    agent.start()
    agent.wait_ready()

    def is_full() -> bool:
        report = audit(agent)
        return bool(report["sources"]) and headings(report, "main").get("spooled", 0) > 50_000

    wait_for(is_full, "the spool to be in use", so_far=agent.tail)
    agent.kill()
    report = audit(agent)
    main = headings(report, "main")
    assert main == {"written": MIB, "spooled": main["spooled"], "waiting": MIB - main["spooled"]}
    assert headings(report, "copy") == {"written": MIB, "delivered": MIB}
    backend.behave("healthy")
    agent.start()
    settled(agent, "main", written=MIB, delivered=MIB)


def test_a_file_that_vanishes_under_a_stopped_agent_is_unaccounted_until_it_starts(
    agent: Agent, backend: Backend, logs: Path
) -> None:
    leave_lines_in_their_file(agent, backend, logs)
    assert headings(audit(agent), "main") == {"written": 3200, "waiting": 3200}
    (logs / "a.log").rename(logs / "a.log.1")
    assert headings(audit(agent), "main") == {"written": 3200, "waiting": 3200}, "found under its other name"
    (logs / "a.log.1").unlink()
    report = audit(agent, code=1)
    assert headings(report, "main") == {"written": 3200, "unaccounted": 3200}
    run = agent.call("audit")
    assert "app to main: 3,200 bytes are unaccounted for" in run.stdout
    agent.start()
    report = settled(agent, "main", written=3200, lost_unsized=3200)
    assert headings(report, "copy") == {"written": 3200, "delivered": 3200}
    assert [one["unsized_losses"] for one in report["sources"]] == [1, 1]
    assert "losses of unknown size, of at least 3,200 bytes" in agent.call("audit").stdout
    assert agent.stop() == 0
    with database(agent) as connection:
        connection.execute("UPDATE files SET gone_ns = 1")
    agent.start()
    wait_for(
        lambda: not database(agent).execute("SELECT count(*) FROM files").fetchone()[0],
        "the file to be forgotten",
        timeout_s=60,
        so_far=agent.tail,
    )
    settled(agent, "main", written=3200, lost_unsized=3200)


def test_a_deleted_file_that_the_agent_holds_is_waiting(agent: Agent, backend: Backend, logs: Path) -> None:
    backend.behave("refuse")
    agent.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    settled(agent, "copy", written=3200, delivered=3200)
    (logs / "a.log").unlink()
    settled(agent, "main", written=3200, waiting=3200)
    audit(agent)


def test_what_was_refused_is_with_the_dead_letters(agent: Agent, backend: Backend, logs: Path) -> None:
    backend.behave("status", status=400, times=1)
    agent.config["outputs"]["main"]["block"] = {"max_bytes": "1KiB"}
    agent.config["limits"]["chunk_bytes"] = "64KiB"
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    settled(agent, "main", written=3200, dead_lettered=3200)
    with (logs / "a.log").open("a") as file:
        file.write(LINE * 10)
    settled(agent, "main", written=3520, dead_lettered=3200, delivered=320)


def test_bytes_that_were_passed_over_are_found(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text(LINE * 100)
    agent.run_once()
    audit(agent)
    with database(agent) as connection:
        connection.execute("UPDATE positions SET acked = acked - 32 WHERE output = 'main'")
    report = audit(agent, "--source", "app", code=1)
    assert headings(report, "main") == {"written": 3200, "delivered": 3168, "unaccounted": 32, "passed_over": 32}
    assert report["unaccounted"] == 32


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("log_too", [False, True])
def test_what_is_gone_from_the_spool_is_open_until_it_is_read_again_or_in_the_ledger(
    agent: Agent, backend: Backend, logs: Path, whole: bool, log_too: bool
) -> None:
    backend.behave("refuse")
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    settled(agent, "main", written=3200, spooled=3200)
    agent.kill()
    spool = agent.directory / "state" / "spool"
    if whole:
        shutil.rmtree(spool)
    else:
        next((spool / "main").glob("*.seg")).unlink()
    troubles = audit(agent, code=1)["troubles"]
    assert "1 blocks with 3200 bytes of log are not there any more" in {trouble["message"] for trouble in troubles}
    assert all(trouble["open"] for trouble in troubles)
    if log_too:
        (logs / "a.log").unlink()
    agent.start()
    agent.wait_ready()
    if not log_too:
        assert settled(agent, "main", written=3200, spooled=3200)["balanced"]
        backend.behave()
        agent.try_now()
        settled(agent, "main", written=3200, delivered=3200)
        return
    report = settled(agent, "main", written=3200, lost=3200)
    assert report["balanced"]
    assert ("spool_missing", 3200) in [loss for one in report["sources"] for loss in one["reasons"].items()]


def test_a_compressed_file_that_was_empty_when_it_was_found_is_no_log(
    agent: Agent, backend: Backend, logs: Path
) -> None:
    """As gzip does it: the file is made, then filled."""
    agent.config["sources"]["app"]["include"] = [f"{logs}/*"]
    compressed = logs / "a.log.1.gz"
    compressed.touch()
    agent.start()
    settled(agent, "main")
    compressed.write_bytes(gzip.compress(os.urandom(4000).hex("\n").encode()))
    (logs / "b.log").write_text(LINE)
    settled(agent, "main", written=32, delivered=32)
    wait_for(lambda: "stored as gzip" in agent.call("status").stdout, "it to be refused", so_far=agent.tail)
    assert [record["message"] for one in backend.new_arrivals() for record in one.records()] == [LINE.strip()]


def test_what_an_output_need_not_have_is_skipped(agent: Agent, logs: Path) -> None:
    agent.config["sources"]["app"]["start_at"] = "end"
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    agent.wait_ready()
    with (logs / "a.log").open("a") as file:
        file.write(LINE)
    settled(agent, "main", written=3232, skipped=3200, delivered=32)


def test_what_came_before_an_output_that_a_reload_adds_is_skipped(agent: Agent, logs: Path) -> None:
    agent.config["sources"]["app"]["start_at"] = "end"
    (logs / "a.log").write_text(LINE)
    agent.start()
    agent.wait_ready()
    with (logs / "a.log").open("a") as file:
        file.write(LINE * 10)
    settled(agent, "main", written=352, skipped=32, delivered=320)
    agent.config["outputs"]["third"] = {"type": "blackhole"}
    agent.command("check")  # writes the configuration anew
    agent.try_now()
    wait_for(lambda: '"third"' in agent.get("/files")[1], "the third output to have its place", so_far=agent.tail)
    with (logs / "a.log").open("a") as file:
        file.write(LINE)
    settled(agent, "third", written=384, skipped=352, delivered=32)
    audit(agent)


def test_an_output_that_had_nothing_yet_is_no_new_one_after_a_restart(
    agent: Agent, backend: Backend, logs: Path
) -> None:
    backend.behave("refuse")
    agent.config["sources"]["app"]["start_at"] = "end"
    agent.config["outputs"]["main"]["spool"] = {"max_bytes": 0}
    agent.start()
    agent.wait_ready()
    (logs / "a.log").write_text(LINE * 100)
    settled(agent, "copy", written=3200, delivered=3200)
    assert headings(audit(agent), "main") == {"written": 3200, "waiting": 3200}
    agent.kill()
    backend.behave("healthy")
    agent.start()
    settled(agent, "main", written=3200, delivered=3200)
    assert sum(len(list(one.records())) for one in backend.new_arrivals()) == 100


def test_an_output_that_is_added_or_removed_leaves_the_books_in_balance(
    agent: Agent, backend: Backend, logs: Path
) -> None:
    leave_lines_in_their_file(agent, backend, logs)
    agent.config["outputs"]["third"] = {"type": "blackhole"}
    gone = agent.config["outputs"].pop("main")
    agent.start()
    settled(agent, "third", written=3200, delivered=3200)
    (logs / "a.log").unlink()
    wait_for(lambda: all(file["gone"] for file in audit(agent, "--files")["files"]), "the file to end")
    assert headings(audit(agent), "main") == {}, "what was never to be sent there is not expected"
    assert gone["type"] == "http"


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_killed_agents_state_can_be_audited_on_a_disk_that_takes_no_writes(
    agent: Agent, logs: Path, tmp_path: Path
) -> None:
    (logs / "a.log").write_text(LINE * 100)
    agent.start()
    settled(agent, "main", written=3200, delivered=3200)
    settled(agent, "copy", written=3200, delivered=3200)
    agent.kill()
    state = tmp_path / "readonly"
    state.mkdir()
    subprocess.run(["mount", "--bind", str(agent.directory / "state"), str(state)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(state)], check=True)
        (state / "checkpoint.db-shm").exists()
        report = audit(agent, "--data-dir", str(state))
        assert headings(report, "main") == {"written": 3200, "delivered": 3200}
        run = agent.call("spool", "ls", "--data-dir", str(state))
        assert (run.returncode, run.stderr) == (0, "")
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def test_an_agent_that_does_not_answer_is_told(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text(LINE)
    agent.start()
    settled(agent, "main", written=32, delivered=32)
    report = audit(agent, "--api", f"unix:{agent.directory}/other.sock")
    assert report["running"] is True
    assert [one["subject"] for one in report["troubles"]] == ["agent"]


def test_a_database_of_another_version_is_told(agent: Agent, logs: Path) -> None:
    (logs / "a.log").write_text(LINE)
    agent.run_once()
    with database(agent) as connection:
        connection.execute("PRAGMA user_version = 99")
    run = agent.call("audit")
    assert (run.returncode, "use the hostagent that made it" in run.stderr) == (1, True)
    (agent.directory / "state" / "checkpoint.db").write_bytes(b"\0" * 8192)
    run = agent.call("audit")
    assert (run.returncode, "Traceback" in run.stderr) == (1, False)
    (agent.directory / "state" / "checkpoint.db").unlink()
    run = agent.call("audit")
    assert (run.returncode, "checkpoint.db is not there" in run.stderr) == (1, True)
