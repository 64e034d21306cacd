"""The whole agent through an outage: backend away, log deleted, agent killed; every line arrives, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.streams import LogStream
from tests.support.waiting import wait_for


def configuration(logs: Path, backend: Backend) -> dict[str, Any]:
    return {
        "sources": {"app": {"type": "file", "include": [f"{logs}/*.log"], "close_grace": "100ms"}},
        "outputs": {
            "main": {
                "type": "http",
                "url": backend.url(),
                "timeout": "1s",
                "block": {"max_wait": "50ms"},
                "spool": {"reserve_bytes": 0},
            }
        },
    }


def output_of(agent: Agent) -> dict[str, Any]:
    (found,) = json.loads(agent.get("/status")[1])["outputs"]
    return dict(found)


@pytest.mark.parametrize("outage", ["refuse", "stall", "status"])
def test_every_line_arrives_once_after_the_backend_was_down_the_log_deleted_and_the_agent_killed(
    tmp_path: Path, outage: str
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    stream = LogStream(logs, "app")
    oracle = Oracle()
    with Backend(tmp_path / "backend") as backend, Agent(tmp_path / "agent", configuration(logs, backend)) as agent:
        agent.start()
        agent.wait_ready()
        stream.write(100)

        def arrived(count: int) -> bool:
            oracle.take(backend.new_arrivals())
            return oracle.arrived >= count

        wait_for(lambda: arrived(100), "the first lines")
        backend.behave(outage)
        for _ in range(3):
            stream.write(5000)
        wait_for(
            lambda: output_of(agent)["spooled_blocks"] and not output_of(agent)["behind_bytes"],
            "all that was written to be spooled",
            so_far=lambda: str(output_of(agent)),
        )
        stream.delete()
        agent.kill()
        agent.start()
        agent.wait_ready()
        stream.write(1000)
        backend.behave("healthy")
        wait_for(lambda: arrived(stream.next_seq), "every line", timeout_s=60, so_far=lambda: str(output_of(agent)))
        assert agent.stop() == 0
        oracle.take(backend.new_arrivals())
        findings = oracle.findings({stream.name: stream.next_seq})
    assert findings.clean, str(findings)
