"""Dead letters and quarantined blocks are sent once more when an operator says so, by whichever agent there is."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.state.values import flip
from tests.support.agent import Agent, logs_to_http
from tests.support.backend import Backend
from tests.support.directories import fill_up, small_disk
from tests.support.waiting import wait_for

LINES = [f"line {number:04d}" for number in range(200)]


@pytest.fixture
def agent(tmp_path: Path, logs: Path, backend: Backend) -> Iterator[Agent]:
    (logs / "a.log").write_text("".join(f"{line}\n" for line in LINES))
    with Agent(tmp_path / "agent", logs_to_http(logs, backend.url())) as one:
        yield one


def refuse_everything(agent: Agent, backend: Backend) -> list[str]:
    """The ids of the entries that hold all lines."""
    backend.behave("status", status=400)
    agent.start()
    agent.wait_ready()

    def all_refused() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = agent.answer("dead-letters", "ls")
        return found if sum(one["records"] for one in found) == len(LINES) else []

    return [one["entry"] for one in wait_for(all_refused, "everything to be refused", so_far=agent.tail)]


def arrived(backend: Backend) -> list[str]:
    return [record["message"] for one in backend.new_arrivals() for record in one.records()]


def sums(agent: Agent) -> dict[str, int]:
    (one,) = agent.answer("audit")["sources"]
    return {name: bytes_ for name, bytes_ in one["account"].items() if bytes_}


def test_what_the_backend_takes_now_is_off_the_list(agent: Agent, backend: Backend) -> None:
    entries = refuse_everything(agent, backend)
    assert sums(agent) == {"written": 2000, "dead_lettered": 2000}
    backend.behave("healthy")
    done = agent.answer("dead-letters", "requeue", "main", *entries)
    assert done == {"state": "done", "sent": len(entries), "failures": [], "refused_again": 0}
    assert arrived(backend) == LINES
    assert agent.answer("dead-letters", "ls") == []
    assert sums(agent) == {"written": 2000, "delivered": 2000}
    assert os.listdir(agent.directory / "state" / "requests") == []


def test_what_is_refused_again_is_a_new_entry(agent: Agent, backend: Backend) -> None:
    before = refuse_everything(agent, backend)
    for _ in range(2):
        run = agent.call("dead-letters", "requeue", "main", "--all")
        assert run.returncode == 0, run.stderr
        assert f"{len(before)} entries were sent again" in run.stdout
        assert f"{len(before)} entries were refused again" in run.stdout
    after = agent.answer("dead-letters", "ls")
    assert sum(one["records"] for one in after) == len(LINES)
    assert not {one["entry"] for one in after} & set(before)
    assert sums(agent) == {"written": 2000, "dead_lettered": 2000}


def test_without_an_agent_the_next_one_does_it(agent: Agent, backend: Backend) -> None:
    refuse_everything(agent, backend)
    assert agent.stop() == 0
    run = agent.call("dead-letters", "requeue", "main", "--all")
    assert (run.returncode, run.stdout) == (0, "no agent is running: the entries are sent when one starts\n")
    backend.behave("healthy")
    agent.start()
    wait_for(lambda: agent.answer("dead-letters", "ls") == [], "the entries to go", so_far=agent.tail)
    assert arrived(backend) == LINES


def test_a_backend_that_is_down_gets_them_once_it_is_back_even_if_the_agent_is_killed(
    agent: Agent, backend: Backend, tmp_path: Path
) -> None:
    refuse_everything(agent, backend)
    backend.behave("stored_then_reset")
    run = agent.call("dead-letters", "requeue", "main", "--all", "--wait", "0.5")
    assert (run.returncode, "the agent has not sent the entries yet" in run.stdout) == (1, True)
    wait_for(lambda: backend.stats()["stored"], "the backend to have stored it without saying so", so_far=agent.tail)
    assert "wait to be sent again" in agent.call("status").stdout
    agent.kill()
    backend.behave("healthy")
    agent.start()
    wait_for(lambda: agent.answer("dead-letters", "ls") == [], "the entries to go", so_far=agent.tail)
    with (tmp_path / "logs" / "a.log").open("a") as file:
        file.write("fresh\n")
    wait_for(lambda: backend.stats()["stored"] >= 2, "the fresh line", so_far=agent.tail)
    assert arrived(backend) == [*LINES, "fresh"], "the second time they came under the same id"


def test_entries_must_be_named_and_must_be_there(agent: Agent, backend: Backend) -> None:
    refuse_everything(agent, backend)
    assert agent.call("dead-letters", "requeue", "main").returncode == 2
    assert agent.call("dead-letters", "requeue", "main", "1-1", "--all").returncode == 2
    run = agent.call("dead-letters", "requeue", "main", "1-99999")
    assert (run.returncode, "there is no entry 1-99999" in run.stderr) == (1, True)


def test_the_whole_blocks_of_a_damaged_segment_come_again_under_their_ids(
    agent: Agent, backend: Backend, tmp_path: Path
) -> None:
    agent.config["outputs"]["main"]["block"] = {"max_bytes": "1KiB"}
    agent.config["limits"]["chunk_bytes"] = "1KiB"
    backend.behave("refuse")
    agent.start()
    agent.wait_ready()
    spool = agent.directory / "state" / "spool" / "main"
    agent.wait_spooled()
    (segment,) = spool.glob("*.seg")
    run = agent.call("spool", "replay", str(segment))
    assert (run.returncode, "still waits in the spool" in run.stderr) == (1, True)
    kept = Path(shutil.copy(segment, tmp_path / f"20300101T000000Z-main-{segment.name}"))
    blocks = agent.answer("spool", "ls", str(kept))
    assert len(blocks) > 1
    flip(kept, blocks[1]["offset"] + blocks[1]["disk_bytes"] - 1)
    backend.behave("healthy")
    agent.try_now()
    wait_for(lambda: backend.stats()["stored"] == len(blocks), "the spool to drain", so_far=agent.tail)
    done = agent.answer("spool", "replay", str(kept), code=1)
    assert (done["state"], done["sent"], done["whole_blocks"]) == ("done", len(blocks) - 1, len(blocks) - 1)
    assert [one["block"] for one in done["damaged"]] == [blocks[1]["id"]]
    assert "checksum is wrong" in done["failures"][0]
    stats = backend.stats()
    assert (stats["stored"], stats["repeated"], stats["violation"]) == (len(blocks), len(blocks) - 1, 0)
    assert "checksum is wrong" in agent.call("spool", "replay", str(kept)).stdout
    assert sums(agent) == {"written": 2000, "delivered": 2000}
    agent.answer("spool", "replay", str(kept), "--output", "nowhere", code=1)


def test_what_was_sent_is_not_sent_again_because_its_result_can_not_be_stored(
    agent: Agent, backend: Backend, tmp_path: Path
) -> None:
    backend.behave("refuse")
    agent.start()
    agent.wait_ready()
    agent.wait_spooled()
    (segment,) = (agent.directory / "state" / "spool" / "main").glob("*.seg")
    kept = Path(shutil.copy(segment, tmp_path / f"20300101T000000Z-main-{segment.name}"))
    blocks = agent.answer("spool", "ls", str(kept))
    backend.behave("healthy")
    agent.try_now()
    wait_for(lambda: backend.stats()["stored"] == len(blocks), "the spool to drain", so_far=agent.tail)
    requests = agent.directory / "state" / "requests"
    (requests / "again.done").mkdir(parents=True)
    (requests / "again.json").write_text(json.dumps({"output": "main", "segment": str(kept)}))
    agent.try_now()
    wait_for(lambda: backend.stats()["repeated"] == len(blocks), "all of it to come again", so_far=agent.tail)
    for number in range(3):
        # Answered at once, so the agent has looked at the other one by then, too.
        (requests / f"b{number}.json").write_text("no request")
        agent.try_now()
        wait_for((requests / f"b{number}.done").exists, "a look at the requests", so_far=agent.tail)
    (requests / "again.done").rmdir()
    agent.try_now()
    wait_for((requests / "again.done").exists, "the result", so_far=agent.tail)
    assert json.loads((requests / "again.done").read_text()) == {"sent": len(blocks), "failures": []}
    assert backend.stats()["repeated"] == len(blocks)


def test_a_file_that_is_no_request_is_answered_and_removed(agent: Agent) -> None:
    requests = agent.directory / "state" / "requests"
    requests.mkdir(parents=True)
    (requests / "a.json").write_text('{"output": "main", "rm": "-rf"}')
    (requests / "b.json").symlink_to("/etc/passwd")
    (requests / "c.json").write_bytes(b"\xff" * 100)
    os.mkfifo(requests / "d.json")
    agent.start()
    agent.wait_ready()
    wait_for(lambda: not list(requests.glob("*.json")), "the requests to be answered", so_far=agent.tail)
    assert {path.name: json.loads(path.read_text())["failures"] for path in requests.iterdir()} == {
        f"{name}.done": ["this is no request"] for name in "abcd"
    }
    assert "root:" in Path("/etc/passwd").read_text()


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_full_or_read_only_disk_is_told_and_nothing_is_changed(
    agent: Agent, backend: Backend, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        agent.config["data_dir"] = str(disk / "state")
        refuse_everything(agent, backend)
        assert agent.stop() == 0
        fill_up(disk)
        run = agent.call("dead-letters", "requeue", "main", "--all")
        assert (run.returncode, "free some space" in run.stderr, "Traceback" in run.stderr) == (1, True, False)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run = agent.call("dead-letters", "requeue", "main", "--all")
        assert (run.returncode, "remount" in run.stderr, "Traceback" in run.stderr) == (1, True, False)
        assert sums(agent) == {"written": 2000, "dead_lettered": 2000}
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert list((disk / "state" / "requests").iterdir()) == []
