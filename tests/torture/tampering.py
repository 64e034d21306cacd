"""strace between the agent and the kernel: calls that fail, and a process that dies right before or right after a call.

Nothing of the agent is replaced: its own calls are refused on their way into the kernel. Which calls are meant is said
by their names and, where others make the same calls, by the files they act on.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from tests.support.waiting import wait_for

_LINGER_US = 20_000_000


class Point(msgspec.Struct, frozen=True):
    """A call of the agent's; the kill comes at one of its first `up_to`. `damaged` is what has to be repaired then."""

    name: str
    calls: str
    paths: tuple[str, ...] = ()  # relative to data_dir; none: whatever the call acts on
    up_to: int = 3
    damaged: str = ""  # "database" or "spool"


def lacks_strace() -> str:
    """Whether strace is there and may trace at all."""
    if shutil.which("strace") is None:
        return "the program strace"
    run = subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True)
    return "" if run.returncode == 0 else "permission to trace processes"


def _tracing(log: Path, calls: str, paths: Iterable[Path]) -> list[str]:
    chosen = [word for path in paths for word in ("-P", str(path))]
    return ["strace", "-f", "-o", str(log), *chosen, "-e", f"trace={calls}"]


def killing_before(log: Path, calls: str, paths: Iterable[Path], nth: int) -> list[str]:
    """A wrapper for the agent's command line: the nth such call is not made, the agent is dead instead.

    -D keeps the agent the child of whoever starts it. Without --seccomp-bpf, which would not deliver the signal here.
    """
    return [*_tracing(log, calls, paths), "-D", "-e", f"inject={calls}:signal=KILL:when={nth}"]


def stopping_after(log: Path, calls: str, paths: Iterable[Path], nth: int) -> list[str]:
    """The thread that makes the nth such call does not come back from it; `made_in` says when it is there."""
    inject = f"inject={calls}:delay_exit={_LINGER_US}:when={nth}"
    return [*_tracing(log, calls, paths), "-D", "--seccomp-bpf", "-e", inject]


def made_in(log: Path) -> bool:
    """Whether a call to be lingered on was made."""
    return log.exists() and b"(DELAYED)" in log.read_bytes()


def tracer_of(pid: int) -> int:
    """Who traces a process; 0 for nobody."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    return 0


class Failing:
    """Calls of a running process fail from `attach` until `stop`; or until it is gone, and another may be attached."""

    def __init__(self, log: Path, calls: str, paths: Iterable[Path], *, how: str) -> None:
        """`how` is an error's name and when to answer it: `EIO:when=2+3`."""
        self._command = [*_tracing(log, calls, paths), "-q", "-e", f"inject={calls}:error={how}"]
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, pid: int) -> bool:
        """Whether the process lived long enough for that."""
        self.stop()
        process = self._process = subprocess.Popen([*self._command, "-p", str(pid)])
        wait_for(lambda: tracer_of(pid) != 0 or process.poll() is not None, "strace to attach")
        return process.poll() is None

    def stop(self) -> None:
        """The process is let go and lives on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(10)


def comes_true(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether it came true within that time."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True
