"""`spool` and `dead-letters` show what a real agent left on disk, while it runs and after it died."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.state.values import flip
from tests.support.agent import Agent, logs_to_http
from tests.support.backend import Backend
from tests.support.waiting import wait_for

LINES = [f"line {number:04d}" for number in range(200)]


@pytest.fixture
def agent(tmp_path: Path, logs: Path, backend: Backend) -> Iterator[Agent]:
    (logs / "a.log").write_text("".join(f"{line}\n" for line in LINES))
    with Agent(tmp_path / "agent", logs_to_http(logs, backend.url())) as one:
        yield one


def spool_everything(agent: Agent, backend: Backend) -> None:
    backend.behave("refuse")
    agent.start()
    agent.wait_ready()
    agent.wait_spooled()
    assert sum(one["records"] for one in blocks(agent)) == len(LINES)


def blocks(agent: Agent) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = agent.answer("spool", "ls", "main")
    return found


def messages(text: str) -> list[str]:
    return [json.loads(line)["message"] for line in text.splitlines()]


def segment(agent: Agent) -> Path:
    (found,) = (agent.directory / "state" / "spool" / "main").glob("*.seg")
    return found


def test_what_waits_can_be_listed_printed_and_verified_beside_the_agent(agent: Agent, backend: Backend) -> None:
    spool_everything(agent, backend)
    (main,) = agent.answer("spool", "ls")
    assert (main["output"], main["records"], main["log_bytes"]) == ("main", 200, 200 * 10)
    assert (main["damaged"], main["missing_segments"], main["foreign_files"]) == (0, [], [])
    listed = blocks(agent)
    assert sum(span["end"] - span["start"] for block in listed for span in block["ranges"]) == 2000
    assert listed[0]["id"] in agent.call("spool", "ls", "main").stdout
    assert messages(agent.call("spool", "cat", "main").stdout) == LINES
    one = agent.call("spool", "cat", "main", listed[0]["id"])
    assert messages(one.stdout) == LINES[: listed[0]["records"]]
    assert agent.answer("spool", "cat", "main", listed[0]["id"])["lines"] == one.stdout.splitlines()
    assert agent.answer("spool", "verify") == {"whole_blocks": len(listed), "damaged": []}
    backend.behave("healthy")
    agent.try_now()
    wait_for(lambda: blocks(agent) == [], "the spool to drain", so_far=agent.tail)
    assert agent.stop() == 0
    assert [record["message"] for one in backend.new_arrivals() for record in one.records()] == LINES


def test_a_damaged_block_is_named_and_the_others_are_read(agent: Agent, backend: Backend) -> None:
    spool_everything(agent, backend)
    agent.kill()
    (block, *others) = blocks(agent)
    flip(segment(agent), block["offset"] + block["disk_bytes"] - 1)
    found = agent.answer("spool", "verify", code=1)
    assert found["whole_blocks"] == len(others)
    assert [(one["block"], one["start"], one["ranges"]) for one in found["damaged"]] == [
        (block["id"], block["offset"], block["ranges"])
    ]
    shown = agent.call("spool", "verify", "main")
    assert f"{segment(agent)}, bytes {block['offset']} to" in shown.stdout
    printed = agent.call("spool", "cat", str(segment(agent)))
    assert printed.returncode == 1
    assert messages(printed.stdout) == LINES[block["records"] :]
    assert "checksum is wrong" in printed.stderr


def test_a_missing_segment_is_named(agent: Agent, backend: Backend) -> None:
    spool_everything(agent, backend)
    agent.kill()
    number = int(segment(agent).name.split("-")[0])
    segment(agent).unlink()
    (found,) = agent.answer("spool", "verify", code=1)["damaged"]
    assert found == {"segment": f"{agent.directory}/state/spool/main/{number:012d}-*.seg", "why": "it is gone"}
    assert agent.answer("spool", "ls")[0]["missing_segments"] == [number]


def test_a_segment_of_another_version_is_told_and_nothing_is_changed(agent: Agent, backend: Backend) -> None:
    spool_everything(agent, backend)
    agent.kill()
    path = segment(agent)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"HAF\x01", b"HAF\x09"))
    other = path.read_bytes()
    run = agent.call("spool", "verify")
    assert run.returncode == 1
    assert "written in version 9 of the format, this hostagent reads 1" in run.stdout
    assert path.read_bytes() == other


@pytest.mark.parametrize("arguments", [("spool", "ls"), ("spool", "verify"), ("dead-letters", "ls")])
def test_without_a_state_it_says_where_it_looked(agent: Agent, arguments: tuple[str, ...]) -> None:
    run = agent.call(*arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"{agent.directory}/state (data_dir of {agent.config_path}) does not exist" in run.stderr
    shutil.copytree(agent.directory, agent.directory.parent / "moved" / "state")
    assert agent.call(*arguments, "--data-dir", f"{agent.directory.parent}/moved/state").returncode == 0


def test_a_name_that_is_not_there_is_answered_with_those_that_are(agent: Agent, backend: Backend) -> None:
    spool_everything(agent, backend)
    run = agent.call("spool", "ls", "other")
    assert (run.returncode, "outputs that have: main" in run.stderr) == (1, True)
    run = agent.call("spool", "cat", "main", "no-such-block")
    assert (run.returncode, "no block no-such-block" in run.stderr) == (1, True)
    run = agent.call("spool", "ls", str(agent.config_path))
    assert (run.returncode, "not the name of a segment" in run.stderr) == (1, True)
    run = agent.call("dead-letters", "ls", "main")
    assert (run.returncode, "outputs that have: none" in run.stderr) == (1, True)


def test_a_name_no_filesystem_takes_is_no_output_either(agent: Agent) -> None:
    (agent.directory / "state").mkdir(parents=True)
    run = agent.call("spool", "ls", "a" * 5000)
    assert (run.returncode, "has nothing spooled" in run.stderr, run.stderr.count("\n")) == (1, True, 1)


def test_dead_letters_are_listed_and_printed_with_their_reasons(agent: Agent, backend: Backend) -> None:
    backend.behave("status", status=400)
    agent.start()
    agent.wait_ready()
    found: list[dict[str, Any]] = wait_for(
        lambda: agent.answer("dead-letters", "ls"), "dead letters", so_far=agent.tail
    )
    assert sum(one["records"] for one in found) == len(LINES)
    assert "400" in found[0]["reasons"][0]
    shown = agent.call("dead-letters", "ls", "main").stdout
    assert f"main    {found[0]['entry']}" in shown
    assert messages(agent.call("dead-letters", "cat", "main").stdout) == LINES
    one = agent.call("dead-letters", "cat", "main", found[0]["entry"], "--json").stdout.splitlines()
    assert len(one) == found[0]["records"]
    assert json.loads(json.loads(one[0])["record"])["message"] == LINES[0]
    assert "400" in json.loads(one[0])["reason"]
    run = agent.call("dead-letters", "cat", "main", "1-99")
    assert (run.returncode, "there is no entry 1-99" in run.stderr) == (1, True)
