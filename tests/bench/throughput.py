"""One file at full speed, to a black hole and to an HTTP backend in another process; what arrived is checked after.

Each run stands beside `zstd -1` of the same file, once before and once after, so that figures of different machines and
of a busy one can be compared.
"""

import hashlib
import itertools
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from tests.bench.measure import Usage, run, zstd_user_s
from tests.bench.workloads import Lane
from tests.support.agent import Agent
from tests.support.backend import Backend

SINKS = ("blackhole", "http")
TIMEOUT_S = 900.0
MESSAGE_KEYS = ("message", "log", "_msg", "content")


class Result(msgspec.Struct, frozen=True):
    """One run. `verified` says in words what was checked; an empty `problem` means it held."""

    lane: str
    sink: str
    who: str
    bytes: int
    records: int
    wall_s: float
    usage: Usage
    zstd_s: float
    verified: str
    problem: str = ""

    @property
    def megabytes(self) -> float:
        return self.bytes / 1e6


def measure(lane: Lane, sink: str, path: Path, scratch: Path) -> Result:
    """The agent on one file, `run --once`."""
    with Backend(scratch / "backend") as backend:
        outputs = {"http": {"type": "http", "url": backend.url()}, "blackhole": {"type": "blackhole"}}
        agent = Agent(
            scratch / "agent",
            {
                "sources": {"bench": {"type": "file", "include": [str(path)], "start_at": "beginning", **lane.source}},
                "outputs": {"main": outputs[sink]},
            },
        )
        before_s = zstd_user_s(path, scratch)
        finished = run(agent.command("run", "--once"), scratch, timeout_s=TIMEOUT_S)
        zstd_s = (before_s + zstd_user_s(path, scratch)) / 2
        if finished.usage.exit_code != 0:
            raise RuntimeError(f"the agent ended with {finished.usage.exit_code}:\n{finished.output[-4000:]}")
        records = sum(1 for _ in lane.expected(path))
        if sink == "http":
            verified, problem = check_arrivals(lane, path, backend)
        else:
            verified, problem = check_summary(finished.output, records)
    return Result(
        lane=lane.name,
        sink=sink,
        who="hostagent",
        bytes=path.stat().st_size,
        records=records,
        wall_s=finished.usage.wall_s,
        usage=finished.usage,
        zstd_s=zstd_s,
        verified=verified,
        problem=problem,
    )


def measure_peer(lane: Lane, path: Path, scratch: Path, command: str) -> Result:
    """Another agent: runs until nothing has arrived for three seconds, then is asked to stop."""
    with Backend(scratch / "backend") as backend:
        words = shlex.split(command.replace("{input}", str(path)).replace("{port}", str(backend.port)))
        before_s = zstd_user_s(path, scratch)
        begun_ns = time.time_ns()

        def quiet() -> bool:
            last_ns = backend.stats()["last_ns"]
            return last_ns > 0 and time.time_ns() - last_ns > 3_000_000_000

        finished = run(words, scratch, until=quiet, timeout_s=TIMEOUT_S)
        zstd_s = (before_s + zstd_user_s(path, scratch)) / 2
        last_ns = backend.stats()["last_ns"]
        verified, problem = check_arrivals(lane, path, backend)
        return Result(
            lane=lane.name,
            sink="http",
            who=Path(words[0]).name,
            bytes=path.stat().st_size,
            records=sum(1 for _ in lane.expected(path)),
            wall_s=(last_ns - begun_ns) / 1e9,
            usage=finished.usage,
            zstd_s=zstd_s,
            verified=verified,
            problem=problem,
        )


def delivered_bodies(backend: Backend) -> Iterator[dict[str, Any]]:
    for arrival in backend.new_arrivals():
        content = arrival.content()
        if content.lstrip()[:1] == b"[":
            yield from orjson.loads(content)
        else:
            for line in content.split(b"\n"):
                if line:
                    yield orjson.loads(line)


def _hashed(records: Iterator[bytes]) -> tuple[int, str]:
    digest = hashlib.blake2b(digest_size=16)
    count = 0
    while chunk := list(itertools.islice(records, 10_000)):
        count += len(chunk)
        digest.update(b"\x00".join(chunk) + b"\x00")
    return count, digest.hexdigest()


def _seen(lane: Lane) -> Callable[[dict[str, Any]], bytes]:
    def seen(record: dict[str, Any]) -> bytes:
        try:
            return lane.seen(record)
        except KeyError:
            key = next((name for name in MESSAGE_KEYS if name in record), "")
            return str(record.get(key, "")).rstrip("\n").encode()

    return seen


def check_arrivals(lane: Lane, path: Path, backend: Backend) -> tuple[str, str]:
    """Count and order of everything that arrived, against the file."""
    seen = _seen(lane)
    count, digest = _hashed(seen(record) for record in delivered_bodies(backend))
    wanted_count, wanted_digest = _hashed(lane.expected(path))
    if count != wanted_count:
        return "count", f"{count} of {wanted_count} records arrived"
    if digest != wanted_digest:
        return "count", "the count is right, content or order is not"
    return "count, order, content", ""


def check_summary(output: str, records: int) -> tuple[str, str]:
    """A black hole can't be asked what arrived; the agent's own closing words must name the right count."""
    counts = {int(found) for found in re.findall(r"\b(\d+) records\b", output)}
    if records in counts:
        return "count", ""
    return "count", f"{records} records expected, the agent says {sorted(counts) or 'nothing'}"
