"""A signal at a bad moment: before there is an agent to take it, and while it is busy with the one before."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.packages import install_module, seen_by_agents
from tests.support.waiting import wait_for

# Loaded with the agent's parts, before anything is opened or started.
NEVER_LOADED = """
import threading
from pathlib import Path

Path({begun!r}).touch()
threading.Event().wait()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    source = {"type": "file", "include": [f"{tmp_path}/*.log"]}
    return Agent(tmp_path / "agent", {"sources": {"app": source}, "outputs": {"main": {"type": "blackhole"}}})


@pytest.fixture
def half_loaded(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent that is being loaded, and will be for ever."""
    begun = tmp_path / "begun"
    install_module(tmp_path / "site", "never_loaded", NEVER_LOADED.format(begun=str(begun)))
    seen_by_agents(tmp_path / "site", monkeypatch)
    with agent:
        agent.start()
        wait_for(begun.exists, "the agent to begin", so_far=agent.tail)
        yield agent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_before_anything_was_started_ends_the_agent_in_peace(half_loaded: Agent, number: signal.Signals) -> None:
    half_loaded.signal(number)
    wait_for(lambda: half_loaded.exit_code is not None, "the agent to end", so_far=half_loaded.tail)
    assert half_loaded.exit_code == 0, half_loaded.tail()
    assert half_loaded.tail().endswith("ends with:\n")  # no traceback


def test_a_reload_before_anything_was_started_is_survived(half_loaded: Agent) -> None:
    half_loaded.signal(signal.SIGHUP)
    assert half_loaded.stop() == 0, half_loaded.tail()


def nothing_pending(pid: int) -> bool:
    """Whether the kernel has handed over every signal it was given; until then another one is lost in the first."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("ShdPnd:")[1].split()[0], 16) == 0


def test_signals_that_interrupt_each_other_do_not_keep_the_agent_from_stopping(agent: Agent) -> None:
    with agent:
        agent.start()
        agent.wait_ready()
        for _ in range(3000):
            agent.signal(signal.SIGHUP)
            wait_for(lambda: nothing_pending(agent.pid), "the signal to be taken", poll_s=0)
        agent.must_run()
        assert agent.stop() == 0, agent.tail()
