"""What it costs the agent to spool instead of delivering: CPU seconds for the same megabytes at a fixed rate.

One agent, one log; the backend is there and away by turns, and what was spooled is drained in between, uncounted. The
turns alternate so that whatever else the machine does falls on both.
"""

import re
from pathlib import Path

import msgspec

from tests.bench.measure import Stretch, watch
from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer

LINE_TEXT = 440


class Turn(msgspec.Struct, frozen=True):
    """One stretch, and the log bytes that were cut into blocks during it."""

    stretch: Stretch
    megabytes: float

    @property
    def ms_per_megabyte(self) -> float:
        return 1e3 * self.stretch.cpu_s / self.megabytes


class Cost(msgspec.Struct, frozen=True):
    """Turns of both kinds, in the order in which they were made."""

    megabytes_per_s: float
    direct: list[Turn]
    spooling: list[Turn]
    verified: str

    def mean(self, turns: list[Turn]) -> float:
        return 1e3 * sum(turn.stretch.cpu_s for turn in turns) / sum(turn.megabytes for turn in turns)

    @property
    def ratio(self) -> float:
        return self.mean(self.spooling) / self.mean(self.direct)


def cost(scratch: Path, rate_bytes_s: float, seconds: float, rounds: int) -> Cost:
    logs = scratch / "logs"
    logs.mkdir(parents=True)
    with Backend(scratch / "backend") as backend:
        config = {
            "sources": {"bench": {"type": "file", "include": [f"{logs}/*.log"]}},
            "outputs": {"main": {"type": "http", "url": backend.url(), "spool": {"max_bytes": "8GiB"}}},
        }
        with Agent(scratch / "agent", config) as agent:
            agent.start()
            agent.wait_ready()
            load = Load(str(logs), streams=1, bytes_per_s=rate_bytes_s, text_length=LINE_TEXT, plain=True)
            direct, spooling = [], []
            oracle = Oracle()
            with Writer(load) as writer:
                wait_for(lambda: _metric(agent, "hostagent_output_delivered_blocks_total") > 3, "the first blocks")
                for _ in range(rounds):
                    direct.append(_turn(agent, seconds))
                    backend.behave("refuse")
                    wait_for(lambda: _metric(agent, "hostagent_spool_blocks") > 3, "spooling", timeout_s=60)
                    spooling.append(_turn(agent, seconds))
                    backend.behave()
                    wait_for(lambda: not _metric(agent, "hostagent_spool_blocks"), "the drain", timeout_s=120)
                    oracle.take(backend.new_arrivals())
                written = writer.stop()

            def complete() -> bool:
                oracle.take(backend.new_arrivals())
                return oracle.complete(written)

            wait_for(complete, "every line", timeout_s=120, so_far=agent.tail)
            agent.stop()
    findings = oracle.findings(written)
    return Cost(
        megabytes_per_s=rate_bytes_s / 1e6,
        direct=direct,
        spooling=spooling,
        verified="count, order, content" if findings.clean else str(findings),
    )


def _turn(agent: Agent, seconds: float) -> Turn:
    before = _metric(agent, "hostagent_output_cut_bytes_total")
    stretch = watch(agent.pid, seconds)
    return Turn(stretch, (_metric(agent, "hostagent_output_cut_bytes_total") - before) / 1e6)


def _metric(agent: Agent, name: str) -> float:
    found = re.search(rf"^{name}{{.*}} (\S+)$", agent.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0
