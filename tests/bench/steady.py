"""The agent as a daemon: CPU and memory at a fixed rate and with thousands of idle files, and how late a line arrives.

Every run ends with the oracle: a figure only counts when each line arrived once and in order.
"""

from pathlib import Path
from typing import Any

import msgspec

from tests.bench.measure import Stretch, rss_bytes, watch
from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.lines import make_line
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer

LINE_TEXT = 440  # with its head a line of about 512 bytes


class Steady(msgspec.Struct, frozen=True):
    """A fixed rate for a while."""

    megabytes_per_s: float
    stretch: Stretch
    verified: str


class Idle(msgspec.Struct, frozen=True):
    """Many files in which nothing happens, and the same agent with one."""

    files: int
    stretch: Stretch
    rss_bytes: int
    rss_one_file_bytes: int
    verified: str

    @property
    def bytes_per_file(self) -> float:
        return (self.rss_bytes - self.rss_one_file_bytes) / max(1, self.files - 1)


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from write to received."""

    megabytes_per_s: float
    lines: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    verified: str


def _config(logs: Path, backend: Backend) -> dict[str, Any]:
    return {
        "sources": {"bench": {"type": "file", "include": [f"{logs}/**/*.log"], "start_at": "beginning"}},
        "outputs": {"main": {"type": "http", "url": backend.url()}},
    }


def _logs(scratch: Path) -> Path:
    logs = scratch / "logs"
    logs.mkdir(parents=True)
    return logs


def _collect(oracle: Oracle, backend: Backend, written: dict[str, int]) -> str:
    """Wait until everything has arrived; what is wrong with it, or what was checked."""

    def complete() -> bool:
        oracle.take(backend.new_arrivals())
        return oracle.complete(written)

    wait_for(complete, "all lines to arrive", timeout_s=120, so_far=lambda: str(oracle.findings(written)))
    findings = oracle.findings(written)
    return "count, order, content" if findings.clean else str(findings)


def steady(scratch: Path, rate_bytes_s: float, seconds: float) -> Steady:
    logs = _logs(scratch)
    with Backend(scratch / "backend") as backend, Agent(scratch / "agent", _config(logs, backend)) as agent:
        agent.start()
        agent.wait_ready()
        oracle = Oracle()
        with Writer(Load(str(logs), streams=1, bytes_per_s=rate_bytes_s, text_length=LINE_TEXT, plain=True)) as writer:
            warm = writer.state()
            wait_for(lambda: writer.state() != warm and backend.stats()["stored"] > 3, "the first lines to arrive")
            stretch = watch(agent.pid, seconds)
            written = writer.stop()
        verified = _collect(oracle, backend, written)
        agent.stop()
    return Steady(megabytes_per_s=rate_bytes_s / 1e6, stretch=stretch, verified=verified)


def latency(scratch: Path, rate_bytes_s: float, seconds: float) -> Latency:
    logs = _logs(scratch)
    late_ns: list[int] = []
    with Backend(scratch / "backend") as backend, Agent(scratch / "agent", _config(logs, backend)) as agent:
        agent.start()
        agent.wait_ready()
        oracle = Oracle()
        with Writer(Load(str(logs), streams=1, bytes_per_s=rate_bytes_s, text_length=LINE_TEXT, plain=True)) as writer:
            watch(agent.pid, seconds)
            written = writer.stop()

        def complete() -> bool:
            for arrival in backend.new_arrivals():
                oracle.take([arrival])
                stamps = (int(record["message"].split(" ", 4)[3]) for record in arrival.records())
                late_ns.extend(arrival.entry.at_ns - stamp for stamp in stamps)
            return oracle.complete(written)

        wait_for(complete, "all lines to arrive", timeout_s=60, so_far=lambda: str(oracle.findings(written)))
        agent.stop()
    late_ns.sort()
    findings = oracle.findings(written)
    return Latency(
        megabytes_per_s=rate_bytes_s / 1e6,
        lines=len(late_ns),
        p50_ms=late_ns[len(late_ns) // 2] / 1e6,
        p99_ms=late_ns[len(late_ns) * 99 // 100] / 1e6,
        worst_ms=late_ns[-1] / 1e6,
        verified="count, order, content" if findings.clean else str(findings),
    )


def _settled(scratch: Path, files: int, seconds: float) -> tuple[Stretch, int, str]:
    """CPU over `seconds` and memory of an agent that has read `files` small files and has nothing left to do."""
    logs = _logs(scratch)
    written = {}
    for number in range(files):
        folder = logs / f"{number // 100:03}"
        folder.mkdir(exist_ok=True)
        name = f"idle{number:05}"
        written[name] = 3
        (folder / f"{name}.log").write_bytes(b"".join(make_line(name, 0, seq) for seq in range(3)))
    with Backend(scratch / "backend") as backend, Agent(scratch / "agent", _config(logs, backend)) as agent:
        agent.start()
        oracle = Oracle()
        _collect(oracle, backend, written)
        watch(agent.pid, min(3.0, seconds))  # what start-up still has to write down
        stretch = watch(agent.pid, seconds)
        rss = rss_bytes(agent.pid)
        # Idle must not mean deaf: the last file speaks once more.
        with (logs / f"{(files - 1) // 100:03}" / f"idle{files - 1:05}.log").open("ab") as last:
            last.write(make_line(f"idle{files - 1:05}", 0, 3))
        written[f"idle{files - 1:05}"] = 4
        verified = _collect(oracle, backend, written)
        agent.stop()
    return stretch, rss, verified


def idle(scratch: Path, files: int, seconds: float) -> Idle:
    _, rss_one, _ = _settled(scratch / "one", 1, min(3.0, seconds))
    stretch, rss, verified = _settled(scratch / "many", files, seconds)
    return Idle(files=files, stretch=stretch, rss_bytes=rss, rss_one_file_bytes=rss_one, verified=verified)
