"""Starts and ends the daemons of a private container runtime, and removes what they leave behind.

Owns processes, mounts and cgroups below one temporary directory and one cgroup name. It must never touch anything that
is not named after that directory or that cgroup, so a runtime that the machine itself runs is left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.waiting import NotInTimeError, wait_for

STOP_DEADLINE_S = 15.0
# The file in a runtime's directory that says which test run it belongs to.
OWNER = "owner.pid"


class RuntimeStartError(RuntimeError):
    """A daemon did not come up; the message holds the end of its log."""


class Daemon:
    """One foreground daemon with its log in a file; can be stopped, killed, frozen and started again."""

    def __init__(self, argv: Sequence[str], log_path: Path, ready: Callable[[], bool]) -> None:
        self._argv = list(argv)
        self.log_path = log_path
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self._argv[0]} is not running")
        return self._process.pid

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            # A session of its own: a Ctrl-C at the test run must reach our teardown, not the daemon.
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process = self._process

        def came_up() -> bool:
            if process.poll() is not None:
                raise RuntimeStartError(f"{self._argv[0]} ended with {process.returncode}: {self.log_tail()}")
            return self._ready()

        try:
            wait_for(came_up, f"start of {self._argv[0]}")
        except NotInTimeError as error:
            self.stop()
            raise RuntimeStartError(f"{error}: {self.log_tail()}") from error

    def stop(self) -> None:
        """End it in good order; kill it if it doesn't."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log_tail(self) -> str:
        try:
            return self.log_path.read_text(errors="replace")[-2000:]
        except OSError as error:
            return f"(no log: {error})"


def processes_naming(base: Path) -> Iterator[int]:
    """Processes whose command line names the base directory: a runtime's shims outlive the runtime."""
    needle = os.fsencode(base) + b"/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[0].rpartition(b"/")[2].startswith((b"containerd", b"dockerd", b"runc")) and any(
            needle in argument for argument in argv[1:]
        ):
            yield int(entry.name)


def end_leftovers(base: Path, cgroup: str) -> None:
    """Kill what still runs for this runtime, then remove its mounts, cgroups and files."""
    pids = [*processes_in_cgroup(cgroup), *processes_naming(base)]
    # A shim that is killed can't remove its socket, which lies outside the base directory.
    sockets = [path for pid in pids for path in sockets_of(pid) if "/containerd/s/" in path]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(NotInTimeError):
        wait_for(
            lambda: not list(processes_in_cgroup(cgroup)) and not list(processes_naming(base)),
            "end of the runtime's processes",
            timeout_s=STOP_DEADLINE_S,
        )
    for mount_point in reversed(mounts_below(base)):
        subprocess.run(["umount", "-l", mount_point], check=False, stderr=subprocess.DEVNULL)
    for directory in cgroup_directories(cgroup):
        for path in sorted((Path(root) for root, _, _ in os.walk(directory)), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
    for socket_path in sockets:
        Path(socket_path).unlink(missing_ok=True)
    shutil.rmtree(base, ignore_errors=True)


def new_base(prefix: str) -> Path:
    """An empty directory for a runtime. What a test run that was killed left in one of its own is ended first."""
    for base in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            owner = int((base / OWNER).read_text())
        except (OSError, ValueError):
            continue
        if not Path(f"/proc/{owner}").exists():
            end_leftovers(base, cgroup_of(base))
    base = Path(tempfile.mkdtemp(prefix=prefix))
    (base / OWNER).write_text(str(os.getpid()))
    return base


def cgroup_of(base: Path) -> str:
    return f"hostagent-{base.name}"


def mounts_below(base: Path) -> list[str]:
    prefix = f"{base}/"
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(point for point in points if point.startswith(prefix))


def cgroup_directories(cgroup: str) -> list[Path]:
    """The cgroup's directory in each hierarchy: hybrid machines have one per controller."""
    top = Path("/sys/fs/cgroup")
    return [path for path in (*top.glob(f"*/{cgroup}"), top / cgroup) if path.is_dir()]


def processes_in_cgroup(cgroup: str) -> Iterator[int]:
    for directory in cgroup_directories(cgroup):
        for path in directory.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from (int(line) for line in path.read_text().split())


def sockets_of(pid: int) -> list[str]:
    """Paths of the unix sockets a process holds open."""
    held = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                held.add(os.readlink(entry.path))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [fields[7] for fields in lines if len(fields) == 8 and f"socket:[{fields[6]}]" in held]
