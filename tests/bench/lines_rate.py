"""The agent as a daemon at a fixed number of container lines a second: what a node with talkative containers costs."""

import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from tests.bench.measure import Stretch, cpu_s, rss_bytes
from tests.bench.throughput import check_arrivals
from tests.bench.workloads import LANES, write_file
from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for

LINE_BYTES = 290  # at least what a line of the docker-json lane takes
STEP_S = 0.01


class LinesRate(msgspec.Struct, frozen=True):
    """So many lines a second for a while."""

    lane: str
    lines_per_s: float
    stretch: Stretch
    verified: str


def lines_rate(scratch: Path, lane_name: str, lines_per_s: int, seconds: float) -> LinesRate:
    lane = LANES[lane_name]
    logs = scratch / "logs"
    logs.mkdir(parents=True)
    whole = scratch / "whole"
    write_file(lane, whole, int(lines_per_s * seconds * LINE_BYTES))
    log = logs / "live.log"
    log.touch()
    with Backend(scratch / "backend") as backend:
        config = {
            "sources": {"bench": {"type": "file", "include": [str(log)], **lane.source}},
            "outputs": {"main": {"type": "http", "url": backend.url()}},
        }
        with Agent(scratch / "agent", config) as agent:
            agent.start()
            agent.wait_ready()
            begun_s, before_s = time.monotonic(), cpu_s(agent.pid)
            with whole.open("rb") as lines, log.open("ab", buffering=0) as live:
                written = _copy(lines, live, lines_per_s, seconds)
            wall_s, used_s = time.monotonic() - begun_s, cpu_s(agent.pid) - before_s
            peak = rss_bytes(agent.pid)
            wait_for(lambda: _delivered(agent) >= written, "all lines to arrive", timeout_s=120, so_far=agent.tail)
            agent.stop()
        verified, problem = check_arrivals(lane, log, backend)
    stretch = Stretch(wall_s=wall_s, cpu_s=used_s, peak_rss_bytes=peak)
    return LinesRate(lane=lane_name, lines_per_s=written / wall_s, stretch=stretch, verified=problem or verified)


def _copy(lines: BinaryIO, live: BinaryIO, lines_per_s: int, seconds: float) -> int:
    """Append lines a few at a time, as many as are due; how many."""
    begun_s = time.monotonic()
    written = 0
    while (now_s := time.monotonic() - begun_s) < seconds:
        due = int(now_s * lines_per_s) - written
        live.write(b"".join(lines.readline() for _ in range(due)))
        written += due
        time.sleep(STEP_S)
    return written


def _delivered(agent: Agent) -> int:
    text = agent.get("/metrics")[1]
    found = [line for line in text.splitlines() if line.startswith("hostagent_output_delivered_records_total{")]
    return int(float(found[0].rpartition(" ")[2])) if found else 0
