"""`top` and `tap` show what goes through while it does, and leave delivery alone."""

import json
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.agent import Agent, agent_environment
from tests.support.backend import Backend
from tests.support.waiting import wait_for


@pytest.fixture
def agent(tmp_path: Path, backend: Backend) -> Iterator[Agent]:
    (tmp_path / "logs").mkdir()
    config = {
        "host": "web-1",
        "sources": {
            "app": {
                "type": "file",
                "include": [f"{tmp_path}/logs/*.log"],
                "fields": {"team": "a"},
                "multiline": {"start": "^L", "flush_after": "1s"},
            }
        },
        "outputs": {"main": {"type": "http", "url": backend.url()}},
    }
    with Agent(tmp_path / "agent", config) as one:
        yield one


def tapped(agent: Agent, count: int) -> "subprocess.Popen[str]":
    command = agent.command("tap", "app", "--count", str(count))
    return subprocess.Popen(command, env=agent_environment(), cwd=agent.directory, stdout=subprocess.PIPE, text=True)


def append_until_done(path: Path, process: "subprocess.Popen[str]") -> list[dict[str, object]]:
    """Write records until the tap has seen its share, for nothing tells when it has opened the files."""
    written = 0

    def done() -> bool:
        nonlocal written
        with path.open("a") as file:
            file.write(f"L{written}\nand more\n")
        written += 1
        return process.poll() is not None

    wait_for(done, "the tap to end", poll_s=0.1)
    output, _ = process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("running", [True, False])
def test_tap_prints_new_records_and_delivers_nothing(
    agent: Agent, backend: Backend, tmp_path: Path, running: bool
) -> None:
    path = tmp_path / "logs" / "a.log"
    path.write_text("Lold\n" * 3)
    if running:
        agent.start()
        agent.wait_ready()
    records = append_until_done(path, tapped(agent, 5))
    first = int(str(records[0]["message"]).splitlines()[0][1:])
    assert [record["message"] for record in records] == [f"L{first + number}\nand more" for number in range(5)]
    assert {(record["path"], record["host"], record["team"]) for record in records} == {(str(path), "web-1", "a")}
    if not running:
        assert backend.stats()["stored"] == 0
        assert not (agent.directory / "state").exists()
        return
    whole = path.read_text().count("L")
    arrived: list[str] = []

    def all_arrived() -> bool:
        arrived.extend(record["message"] for one in backend.new_arrivals() for record in one.records())
        return len(arrived) >= whole

    wait_for(all_arrived, "the agent to deliver all, once", so_far=agent.tail)
    assert len(arrived) == whole


def test_tap_knows_its_sources(agent: Agent) -> None:
    run = agent.call("tap", "nothing")
    assert (run.returncode, "sources are app" in run.stderr) == (2, True)


def test_top_shows_rates_that_fit_what_was_written(agent: Agent, tmp_path: Path) -> None:
    run = agent.call("top", "--count", "1")
    assert (run.returncode, "no running agent answers" in run.stderr) == (1, True)
    agent.start()
    agent.wait_ready()
    path = tmp_path / "logs" / "a.log"
    process = subprocess.Popen(
        agent.command("top", "--count", "1", "--interval", "3", "--json"),
        env=agent_environment(),
        cwd=agent.directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    written = 0

    def done() -> bool:
        nonlocal written
        with path.open("a") as file:
            written += file.write("L a line\n" * 10)
        return process.poll() is not None

    wait_for(done, "top to end", poll_s=0.05)
    (rates,) = [json.loads(line) for line in process.communicate()[0].splitlines()]
    (source,), (output,) = rates["sources"], rates["outputs"]
    assert source["name"] == "app"
    assert 0 < source["bytes_per_s"] * rates["seconds"] <= written
    assert source["bytes_per_s"] == pytest.approx(source["records_per_s"] * 9)
    assert 0 < output["bytes_per_s"] * rates["seconds"] <= written
    assert "Outputs" in agent.call("top", "--count", "1", "--interval", "0.1").stdout


@pytest.mark.parametrize("command", [["top", "--interval", "0.1", "--json"], ["tap", "app"]])
def test_ctrl_c_is_how_they_are_meant_to_end(agent: Agent, tmp_path: Path, command: list[str]) -> None:
    agent.start()
    agent.wait_ready()
    with subprocess.Popen(
        agent.command(*command),
        env=agent_environment(),
        cwd=agent.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if command[0] == "tap":
            append_until_printed(tmp_path / "logs" / "a.log", process.stdout)
        else:
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def append_until_printed(path: Path, printing: IO[str]) -> None:
    """As above, for one that goes on."""

    def printed() -> bool:
        with path.open("a") as file:
            file.write("L one\nL two\n")
        return bool(select.select([printing], [], [], 0)[0])

    wait_for(printed, "a record", poll_s=0.1)
