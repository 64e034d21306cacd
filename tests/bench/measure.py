"""CPU, memory and time of a program from outside: in all (wait4) or over a stretch of its life (/proc).

User and system time of the whole process tree count, from the first instruction of its start.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.support.agent import agent_environment
from tests.support.waiting import wait_for

LAUNCH = Path(__file__).with_name("launch.py")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage(msgspec.Struct, frozen=True):
    """What a program used from start to end."""

    wall_s: float
    user_s: float
    system_s: float
    peak_rss_bytes: int
    exit_code: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


class Finished(msgspec.Struct, frozen=True):
    """A program that has ended."""

    usage: Usage
    output: str


def run(
    command: Sequence[str], scratch: Path, *, until: Callable[[], bool] | None = None, timeout_s: float
) -> Finished:
    """Run to the end; with `until`, ask it to stop once that is true."""
    result = scratch / "usage.json"
    result.unlink(missing_ok=True)
    log = scratch / "output.txt"
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-S", "-E", str(LAUNCH), str(result), *command],
            env=agent_environment(),
            stdout=output,
            stderr=output,
        )
        try:
            if until is not None:
                wait_for(lambda: until() or launcher.poll() is not None, "the run to finish", timeout_s=timeout_s)
                launcher.terminate()
            launcher.wait(timeout_s)
        finally:
            if launcher.poll() is None:
                # The launcher's child is what must not stay behind; it is known by the file beside the result.
                os.kill(int(Path(f"{result}.pid").read_text()), 9)
                launcher.wait()
    return Finished(msgspec.json.decode(result.read_bytes(), type=Usage), log.read_text(errors="replace"))


def zstd_user_s(path: Path, scratch: Path) -> float:
    """User seconds of `zstd -1` on the same file."""
    finished = run(["zstd", "-1", "-q", "-f", "-o", os.devnull, str(path)], scratch, timeout_s=600)
    assert finished.usage.exit_code == 0, finished.output
    return finished.usage.user_s


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in os.listdir(f"/proc/{parent}/task"):
            children = Path(f"/proc/{parent}/task/{task}/children")
            found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def cpu_s(pid: int) -> float:
    """User and system seconds used so far by the tree."""
    ticks = 0
    for process in tree(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory of the tree now."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page for process in tree(pid))


class Stretch(msgspec.Struct, frozen=True):
    """What a running program used between two moments."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.wall_s


def watch(pid: int, seconds: float) -> Stretch:
    """Look at a running program for a while."""
    begun_s, before_s = time.monotonic(), cpu_s(pid)
    peak = rss_bytes(pid)
    pause = threading.Event()
    while (left_s := begun_s + seconds - time.monotonic()) > 0:
        pause.wait(min(0.5, left_s))
        peak = max(peak, rss_bytes(pid))
    return Stretch(wall_s=time.monotonic() - begun_s, cpu_s=cpu_s(pid) - before_s, peak_rss_bytes=peak)
