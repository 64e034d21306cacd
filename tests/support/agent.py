"""Runs the agent as its users do: a process, a configuration file, signals, an API socket.

Nothing here looks inside the agent; whatever a test learns, it learns from the outside.
"""

import http.client
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
# A wrapper for tests in which logs are gone soon, at others' pace: whether the agent gets to run meanwhile is not for
# whatever else the machine is busy with to say.
AHEAD_OF_OTHERS = ["nice", "-n", "-20"]


def agent_command() -> list[str]:
    """This checkout's agent, unless HOSTAGENT_COMMAND names another (an installed package's)."""
    if given := os.environ.get("HOSTAGENT_COMMAND"):
        return shlex.split(given)
    return [sys.executable, "-m", "hostagent"]


def agent_environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def logs_to_http(logs: Path, url: str) -> dict[str, Any]:
    """A configuration: every `*.log` of a directory goes to one backend, and a stop waits no longer than a second."""
    return {
        "limits": {"stop_timeout": "1s"},
        "sources": {"app": {"type": "file", "include": [f"{logs}/*.log"]}},
        "outputs": {"main": {"type": "http", "url": url, "spool": {"reserve_bytes": 0}}},
    }


class Agent:
    """One agent with a directory of its own: configuration, data, log. Leaving the context kills what still runs."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.config = {
            "data_dir": str(directory / "state"),
            "api": {"listen": f"unix:{directory}/api.sock"},
            **config,
        }
        self.log = directory / "agent.log"
        self.wrapper: list[str] = []  # a command that runs the agent's command line, such as unshare
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config_path(self) -> Path:
        return self.directory / "hostagent.yaml"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the agent was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with, None while it runs."""
        assert self._process is not None, "the agent was never started"
        return self._process.poll()

    def command(self, *arguments: str) -> list[str]:
        self.config_path.write_text(json.dumps(self.config, indent=1))
        return [*agent_command(), *arguments, "-c", str(self.config_path)]

    def start(self) -> None:
        """Start `run`; it may not have read anything yet when this returns."""
        assert not self.running, "the agent runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, *self.command("run")],
                env=agent_environment(),
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )

    def run_once(self, *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`run --once` to its end."""
        return self.call("run", "--once", timeout_s=timeout_s)

    def call(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Any command of the agent's with this configuration."""
        return subprocess.run(
            self.command(*arguments),
            env=agent_environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def answer(self, *arguments: str, code: int = 0) -> Any:  # noqa: ANN401 - JSON
        """What a command prints with `--json`; it must exit with this code."""
        run = self.call(*arguments, "--json")
        assert run.returncode == code, run.stdout + run.stderr
        return json.loads(run.stdout)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill with -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)

    def stop(self, *, timeout_s: float = 30.0) -> int:
        """Ask it to stop, wait, return its exit code."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"the agent did not stop within {timeout_s:g} s. {self.tail()}") from error

    def must_run(self) -> None:
        """Fail with the agent's own words when it has ended."""
        if not self.running:
            assert self._process is not None
            raise AssertionError(f"the agent ended with {self._process.returncode}. {self.tail()}")

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "Its log ends with:\n" + "\n".join(text.splitlines()[-lines:])

    def get(self, path: str) -> tuple[int, str]:
        """GET from the API socket: status and body."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(str(self.directory / "api.sock"))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self) -> Any:  # noqa: ANN401 - JSON
        """What `GET /status` answers: quicker than the command, for what is asked again and again."""
        return json.loads(self.get("/status")[1])

    def output(self, name: str = "main") -> Any:  # noqa: ANN401 - JSON
        """One output of `status`."""
        return next(one for one in self.status()["outputs"] if one["name"] == name)

    def wait_spooled(self) -> None:
        """Until nothing of what is in the files is anywhere but in the spool of `main`."""

        def all_spooled() -> bool:
            one = self.output()
            return bool(one["spooled_blocks"] and not one["behind_bytes"])

        wait_for(all_spooled, "every line to be spooled", so_far=self.tail)

    def try_now(self) -> None:
        """Have it ask a backend that was down at once, and look at its configuration and its own state."""
        self.signal(signal.SIGHUP)

    def ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            self.must_run()
            return False

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        wait_for(self.ready, "the agent to be ready", timeout_s=timeout_s, so_far=self.tail)

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Meanwhile no thread of the agent runs: the signal alone leaves those on other cores running for a moment."""
        self.signal(signal.SIGSTOP)
        try:
            wait_for(self._stands_still, "every thread to be halted")
            yield
        finally:
            self.signal(signal.SIGCONT)

    def _stands_still(self) -> bool:
        states = set()
        for path in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                states.add(path.read_text().rpartition(")")[2].split()[0])
        return states == {"T"}

    def open_files(self) -> list[tuple[str, os.stat_result]]:
        """What the agent holds open, as the kernel names it; what it closes meanwhile may be missing."""
        found = []
        folder = f"/proc/{self.pid}/fd"
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                found.append((os.readlink(f"{folder}/{name}"), os.stat(f"{folder}/{name}")))
        return found

    def open_inodes(self) -> set[int]:
        """Inodes of the regular files the agent holds open; a socket may have the same number."""
        return {status.st_ino for _, status in self.open_files() if stat.S_ISREG(status.st_mode)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.running:
            self.kill()
        if error is not None:
            error.add_note(self.tail())
