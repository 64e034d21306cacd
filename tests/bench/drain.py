"""A spool filled to its bound and drained by the agent to an HTTP backend, while another output of it stays in time.

The backend refuses, logs that hardly compress are written until the spool is full, the agent is killed and started on
it, the backend comes back. Every line is numbered: a figure only counts when each arrived once, in its file's order,
and none of the draining output's fresh lines before what was spooled.
"""

import base64
import bisect
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench.measure import cpu_s, rss_bytes
from tests.support.agent import Agent, agent_environment
from tests.support.arrivals import Arrival
from tests.support.backend import CHECKOUT, Backend
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer

LINE_BYTES = 512
FILE_BYTES = 64 << 20
POOL_BYTES = 64 << 20  # texts repeat only beyond what any compressor at level 1 looks back on
LIVE_RATE = 500e3
NUMBER = re.compile(rb'"message":"(\d{12}) ')
PATIENCE_S = 600.0


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Megabytes are of log, uncompressed, except where `wire` says otherwise."""

    spool_bytes: int
    megabytes: float
    wire_megabytes: float
    seconds: float
    cpu_s: float
    bare_seconds: float
    bare_wire_megabytes: float
    side_alone_ms: tuple[float, float]
    side_draining_ms: tuple[float, float]
    ready_s: float
    rss_mb: dict[str, float]
    verified: str

    @property
    def rate(self) -> float:
        return self.megabytes / self.seconds

    @property
    def share_of_bare(self) -> float:
        """Of what a bare loop reaches with the same blocks."""
        return (self.wire_megabytes / self.seconds) / (self.bare_wire_megabytes / self.bare_seconds)


class Bulk:
    """Logs of numbered lines, a file after the other."""

    def __init__(self, directory: Path) -> None:
        pool = base64.b64encode(os.urandom(POOL_BYTES * 3 // 4))
        size = LINE_BYTES - 14
        self._texts = [b" %b\n" % pool[start : start + size] for start in range(0, len(pool) - size, size)]
        self._directory = directory
        self.starts: list[int] = []
        self.lines = 0

    def write(self, size: int) -> None:
        """One more file."""
        path = self._directory / f"bulk{len(self.starts):05}.log"
        self.starts.append(self.lines)
        end = self.lines + size // LINE_BYTES
        texts, count = self._texts, len(self._texts)
        with path.open("ab", buffering=0) as log:
            while self.lines < end:
                last = min(end, self.lines + 4096)
                log.write(b"".join(b"%012d%b" % (seq, texts[seq % count]) for seq in range(self.lines, last)))
                self.lines = last


class BulkOracle:
    """Whether the numbered lines come once each, and in order within their files."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk
        self._next: dict[int, int] = {}
        self.seen = 0
        self.wrong = ""

    def take(self, content: bytes) -> int:
        """How many numbered lines an arrival holds."""
        expected = -1
        numbers = [int(number) for number in NUMBER.findall(content)]
        for number in numbers:
            if number != expected or number in self._next:
                file = bisect.bisect_right(self._bulk.starts, number) - 1
                start = self._bulk.starts[file]
                if expected >= 0:
                    self._leave(expected)
                if self._next.get(start, start) != number:
                    self.wrong = self.wrong or f"line {number} came when {self._next.get(start, start)} was due"
            expected = number + 1
        if numbers:
            self._leave(expected)
        self.seen += len(numbers)
        return len(numbers)

    def _leave(self, expected: int) -> None:
        start = self._bulk.starts[bisect.bisect_right(self._bulk.starts, expected - 1) - 1]
        self._next[start] = expected


class Memory:
    """The most an agent holds, phase by phase."""

    def __init__(self) -> None:
        self.mb: dict[str, float] = {}

    def begin(self, pid: int) -> None:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark begins anew

    def end(self, pid: int, phase: str) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        self.mb[f"{phase}, now"] = rss_bytes(pid) / 1e6
        self.mb[f"{phase}, peak"] = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


class Stage:
    """The agent, its two backends and what is written for it."""

    def __init__(self, root: Path, main: Backend, side: Backend, spool_bytes: int) -> None:
        self.root = root
        self.main = main
        self.side = side
        self.spool_bytes = spool_bytes
        for name in ("bulk", "fresh", "side"):
            (root / name).mkdir()
        self.bulk = Bulk(root / "bulk")
        sources = {
            name: {"type": "file", "include": [f"{root}/{name}/*.log"], "outputs": [output]}
            for name, output in (("bulk", "main"), ("fresh", "main"), ("side", "side"))
        }
        block = {"max_wait": "50ms"}
        outputs = {
            "main": {"type": "http", "url": main.url(), "spool": {"max_bytes": spool_bytes}},
            "side": {"type": "http", "url": side.url(), "block": block},
        }
        self.agent = Agent(root / "agent", {"sources": sources, "outputs": outputs})
        self.memory = Memory()

    def metric(self, name: str, output: str = "main") -> float:
        found = re.search(rf'^{name}{{output="{output}"}} (\S+)$', self.agent.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    def behind(self) -> float:
        page = self.agent.get("/metrics")[1]
        return sum(map(float, re.findall(r'^hostagent_source_lag_bytes{.*output="main"} (\S+)$', page, re.MULTILINE)))

    def wait(self, condition: object, what: str) -> None:
        wait_for(condition, what, timeout_s=PATIENCE_S, poll_s=0.1, so_far=self.agent.tail)  # type: ignore[arg-type]


def drain(root: Path, spool_bytes: int, side_seconds: float) -> Drain:
    root.mkdir(parents=True)
    with Backend(root / "main-backend") as main, Backend(root / "side-backend") as side:
        stage = Stage(root, main, side, spool_bytes)
        with stage.agent:
            _deliver_directly(stage)
            _fill(stage)
            kept = _keep_segments(stage)
            ready_s = _restart(stage)
            return _drain(stage, kept, ready_s, side_seconds)


def _deliver_directly(stage: Stage) -> None:
    """The normal state: the same kind of log, as fast as it goes."""
    stage.agent.start()
    stage.agent.wait_ready()
    stage.memory.begin(stage.agent.pid)
    for _ in range(max(1, min(4, stage.spool_bytes // FILE_BYTES))):
        stage.bulk.write(FILE_BYTES)
    stage.wait(lambda: stage.metric("hostagent_output_delivered_records_total") == stage.bulk.lines, "delivery")
    stage.memory.end(stage.agent.pid, "direct delivery")


def _full(stage: Stage) -> bool:
    return "it is full" in stage.agent.get("/status")[1]


def _fill(stage: Stage) -> None:
    stage.main.behave("refuse")
    stage.memory.begin(stage.agent.pid)
    while not _full(stage):
        if stage.behind() < FILE_BYTES:
            stage.bulk.write(FILE_BYTES)
        else:
            threading.Event().wait(0.05)
    stage.memory.end(stage.agent.pid, "spool full")


def _keep_segments(stage: Stage) -> Path:
    """Links to the segments, which the agent removes as it drains them."""
    kept = stage.root / "kept"
    kept.mkdir()
    for path in (stage.root / "agent/state/spool/main").glob("*.seg"):
        os.link(path, kept / path.name)
    return kept


def _restart(stage: Stage) -> float:
    stage.agent.kill()
    begun_s = time.monotonic()
    stage.agent.start()
    stage.agent.wait_ready(PATIENCE_S)
    ready_s = time.monotonic() - begun_s
    stage.wait(lambda: stage.metric("hostagent_spool_bytes") > 0, "the spool")
    stage.memory.end(stage.agent.pid, "restarted")
    return ready_s


def _drain(stage: Stage, kept: Path, ready_s: float, side_seconds: float) -> Drain:
    agent, main = stage.agent, stage.main
    list(stage.side.new_arrivals())
    oracle = BulkOracle(stage.bulk)
    for arrival in main.new_arrivals():
        oracle.take(arrival.content())
    spooled = int(stage.metric("hostagent_spool_records"))
    with Writer(_load(stage.root / "side")) as side, Writer(_load(stage.root / "fresh")) as fresh:
        stage.memory.begin(agent.pid)
        main.behave()
        begun_ns, used_s = time.time_ns(), cpu_s(agent.pid)
        stage.wait(lambda: stage.metric("hostagent_spool_drained_blocks_total") > 0, "the backend to be found")
        stage.wait(lambda: not stage.metric("hostagent_spool_blocks"), "the spool to be empty")
        ended_ns = main.stats()["last_ns"]
        used_s = cpu_s(agent.pid) - used_s
        megabytes = stage.metric("hostagent_spool_drained_log_bytes_total") / 1e6
        stage.memory.end(agent.pid, "draining")
        fresh_written = fresh.stop()
        alone_ns = time.time_ns()
        threading.Event().wait(side_seconds)
        side_written = side.stop()
    late_side, side_verified = _side(stage, side_written)
    alone = [late for at, late in late_side if at >= alone_ns + 1e9]
    drained, verified = _verify(stage, oracle, spooled, fresh_written)
    first_ns = min(at for at, _ in drained if at >= begun_ns)
    within = [size for at, size in drained if first_ns <= at <= ended_ns]
    draining = [late for at, late in late_side if first_ns <= at <= ended_ns]
    agent.stop()
    bare_s, bare_bytes = _bare(stage.root / "bare-backend", kept)
    return Drain(
        spool_bytes=stage.spool_bytes,
        megabytes=megabytes,
        wire_megabytes=sum(within) / 1e6,
        seconds=(ended_ns - first_ns) / 1e9,
        cpu_s=used_s,
        bare_seconds=bare_s,
        bare_wire_megabytes=bare_bytes / 1e6,
        side_alone_ms=_percentiles(alone),
        side_draining_ms=_percentiles(draining),
        ready_s=ready_s,
        rss_mb=stage.memory.mb,
        verified=verified or side_verified or "count, order, content",
    )


def _load(directory: Path) -> Load:
    return Load(str(directory), streams=1, bytes_per_s=LIVE_RATE, text_length=440, plain=True)


def _percentiles(late_ns: list[int]) -> tuple[float, float]:
    """p50 and p99 in milliseconds; none where nothing arrived: a few MiB are drained before the next line."""
    if not late_ns:
        return math.nan, math.nan
    late_ns.sort()
    return late_ns[len(late_ns) // 2] / 1e6, late_ns[len(late_ns) * 99 // 100] / 1e6


def _side(stage: Stage, written: dict[str, int]) -> tuple[list[tuple[int, int]], str]:
    """When each line of the other output was written, and how late it arrived."""
    oracle = Oracle()
    late: list[tuple[int, int]] = []

    def complete() -> bool:
        for arrival in stage.side.new_arrivals():
            oracle.take([arrival])
            stamps = (int(record["message"].split(" ", 4)[3]) for record in arrival.records())
            late.extend((stamp, arrival.entry.at_ns - stamp) for stamp in stamps)
        return oracle.complete(written)

    stage.wait(complete, "the other output's lines")
    findings = oracle.findings(written)
    return late, "" if findings.clean else str(findings)


def _verify(stage: Stage, oracle: BulkOracle, spooled: int, fresh: dict[str, int]) -> tuple[list[tuple[int, int]], str]:
    """Time and size of every request of the drain; what is wrong with what came."""
    requests: list[tuple[int, int]] = []
    live = Oracle()
    before = oracle.seen
    early = ""

    def complete() -> bool:
        nonlocal early
        for arrival in stage.main.new_arrivals():
            requests.append((arrival.entry.at_ns, arrival.entry.size))
            content = arrival.content()
            bulk = oracle.take(content)
            others = content.count(b"\n") - bulk
            if others and oracle.seen - before < spooled:
                early = early or f"a fresh line came when {spooled - (oracle.seen - before)} spooled ones were due"
            _take_fresh(live, arrival, others)
        return oracle.seen == stage.bulk.lines and live.complete(fresh)

    stage.wait(complete, "every line")
    findings = live.findings(fresh)
    return requests, oracle.wrong or early or ("" if findings.clean else str(findings))


def _take_fresh(live: Oracle, arrival: Arrival, others: int) -> None:
    if others:
        for message in _fresh_messages(arrival):
            live.take_message(message)


def _fresh_messages(arrival: Arrival) -> Iterator[str]:
    return (record["message"] for record in arrival.records() if "/fresh/" in record["path"])


def _bare(directory: Path, kept: Path) -> tuple[float, int]:
    """Seconds and bytes of a loop that only posts the same blocks."""
    with Backend(directory) as backend:
        begun_s = time.monotonic()
        command = [sys.executable, "-m", "tests.bench.bare_drain", str(kept), str(backend.port)]
        subprocess.run(command, cwd=CHECKOUT, env=agent_environment(), check=True)
        return time.monotonic() - begun_s, backend.stats()["bytes"]
