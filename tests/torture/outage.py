"""`python -m tests.torture.outage --minutes 10 --rate 10e6`: a long outage, deletions, kills; then everything arrives.

The backend refuses for the whole time. Logs are written at a steady rate and rotated every few seconds; a rotated file
is deleted after a while, and then its bytes are in the spool only; now and then the agent is killed.
After the backend is back, every line must have arrived exactly once.
"""

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for

LINE_BYTES = 500
ROTATE_S = 5.0
DELETE_AFTER_S = 15.0
SEQUENCE = re.compile(rb'"message":"(\d{12}) ')
WORDS = ("connection", "accepted", "upstream", "request", "handled", "worker", "status", "latency", "tenant", "retry")


class Steady:
    """A log written at a steady rate, every line numbered."""

    def __init__(self, path: Path, rate: float, seed: int) -> None:
        rng = random.Random(seed)
        self.path = path
        self.lines = 0
        self._rate = rate
        self._pads = [" ".join(rng.choices(WORDS, k=90)).encode()[: LINE_BYTES - 14] + b"\n" for _ in range(997)]
        self._file = path.open("ab", buffering=0)
        self._started_s = time.monotonic()

    def catch_up(self) -> None:
        """Write what the time that has passed asks for, a second's worth at most."""
        due = int((time.monotonic() - self._started_s) * self._rate / LINE_BYTES)
        last = min(due, self.lines + int(self._rate / LINE_BYTES))
        pads = self._pads
        self._file.write(b"".join(b"%012d " % number + pads[number % 997] for number in range(self.lines, last)))
        self.lines = last

    def rotate(self, name: str) -> Path:
        rotated = self.path.with_name(name)
        os.rename(self.path, rotated)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        return rotated


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10e6, help="log bytes a second")
    parser.add_argument("--kill-every", type=float, default=20.0, help="seconds")
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="hostagent-outage."))
    try:
        return outage(directory, chosen.minutes * 60, chosen.rate, chosen.kill_every)
    finally:
        shutil.rmtree(directory)


def outage(directory: Path, seconds: float, rate: float, kill_every_s: float) -> int:
    logs = directory / "logs"
    logs.mkdir()
    kills = deleted = 0
    with Backend(directory / "backend") as backend:
        config = {
            "sources": {"app": {"type": "file", "include": [f"{logs}/*.log"]}},
            "outputs": {"main": {"type": "http", "url": backend.url(), "spool": {"max_bytes": "8GiB"}}},
        }
        with Agent(directory / "agent", config) as agent:
            backend.behave("refuse")
            agent.start()
            agent.wait_ready()
            log = Steady(logs / "app.log", rate, seed=1)
            end_s = time.monotonic() + seconds
            rotate_at_s, kill_at_s = time.monotonic() + ROTATE_S, time.monotonic() + kill_every_s
            rotated: list[Path] = []
            while time.monotonic() < end_s:
                log.catch_up()
                if time.monotonic() >= kill_at_s:
                    agent.kill()
                    agent.start()
                    agent.wait_ready()
                    kills += 1
                    kill_at_s = time.monotonic() + kill_every_s
                # Old enough to be read and spooled between two kills: what nobody could have read is no test.
                for path in [path for path in rotated if time.time() - path.stat().st_mtime > DELETE_AFTER_S]:
                    path.unlink()
                    rotated.remove(path)
                    deleted += 1
                if time.monotonic() >= rotate_at_s:
                    rotated.append(log.rotate(f"app.{deleted + len(rotated)}.old"))
                    rotate_at_s = time.monotonic() + ROTATE_S
                time.sleep(0.05)
            return drain(backend, agent, log, f"{seconds:.0f} s down, {kills} kills, {deleted} files deleted")


def drain(backend: Backend, agent: Agent, log: Steady, what: str) -> int:
    seen = bytearray(log.lines)
    twice = 0

    def complete() -> bool:
        nonlocal twice
        for arrival in backend.new_arrivals():
            for number in map(int, SEQUENCE.findall(arrival.content())):
                twice += seen[number]
                seen[number] = 1
        return 0 not in seen

    rss_kib = _rss_kib(agent.pid)
    backend.behave()
    started_s = time.monotonic()
    try:
        wait_for(complete, "every line", timeout_s=900, poll_s=0.5, so_far=agent.tail)
    finally:
        took_s = time.monotonic() - started_s
        lost = seen.count(0)
        mb = log.lines * LINE_BYTES / 1e6
        print(f"{what}: {log.lines} lines ({mb:.0f} MB), {lost} lost, {twice} twice")
        print(
            f"drained in {took_s:.0f} s ({mb / took_s:.0f} MB/s, the checking included), agent {rss_kib / 1024:.1f} MiB"
        )
    return 1 if lost or twice else 0


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


if __name__ == "__main__":
    sys.exit(main())
