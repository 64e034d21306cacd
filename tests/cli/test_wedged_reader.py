"""A reader that makes no progress shows: health fails within 30 seconds, the watchdog starves, status says why."""

import socket
import time
from pathlib import Path

import pytest

from hostagent.observe.health import READER_LIMIT_S
from tests.support.agent import Agent
from tests.support.packages import install_module, seen_by_agents
from tests.support.waiting import wait_for

WEDGE = '''
import threading
import msgspec
from hostagent.hookspecs import Component, hookimpl

class Options(msgspec.Struct, frozen=True):
    pass

class Wedge:
    """Never comes back from the first batch, as a regular expression gone wild would."""

    def process(self, batch):
        threading.Event().wait()

@hookimpl
def hostagent_register_processors():
    return {"wedge": Component(Options, lambda options, wiring: Wedge())}
'''


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    site = tmp_path / "site"
    install_module(site, "wedge", WEDGE)
    seen_by_agents(site, monkeypatch)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    config = {
        "sources": {"app": {"type": "file", "include": [f"{tmp_path}/app.log"], "processors": [{"type": "wedge"}]}},
        "outputs": {"main": {"type": "blackhole"}},
    }
    return Agent(tmp_path / "agent", config)


def test_a_wedged_reader_makes_health_fail(agent: Agent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, agent:
        manager.bind(str(tmp_path / "notify.sock"))
        manager.setblocking(False)
        agent.start()
        agent.wait_ready()
        assert agent.get("/healthz") == (200, "ok\n")
        (tmp_path / "app.log").write_text("line\n")
        wait_for(lambda: agent.get("/healthz")[0] == 503, "health to fail", timeout_s=90, poll_s=0.5)
        assert agent.get("/healthz")[1].startswith("reader: ")
        assert agent.get("/readyz")[0] == 503
        run = agent.call("status")
        assert run.returncode == 1
        assert run.stdout.startswith("UNHEALTHY")
        assert "! reader: " in run.stdout
        assert told(manager).count(b"WATCHDOG=1") > 3
        # Four feedings' time without one: the manager would restart the agent now.
        pause_until_s = time.monotonic() + 2
        wait_for(lambda: time.monotonic() > pause_until_s, "the watchdog's time to pass")
        assert b"WATCHDOG=1" not in told(manager)


def test_health_notices_within_half_a_minute() -> None:
    assert READER_LIMIT_S < 30


def told(manager: socket.socket) -> list[bytes]:
    """First lines of the messages the agent has sent since the last look."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).split(b"\n")[0])
        except BlockingIOError:
            return messages
