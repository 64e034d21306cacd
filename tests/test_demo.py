"""The README's first command, as a newcomer runs it: records arrive, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from tests.support.directories import anyones_directory

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60


class Demo:
    """One run of the script, in a session of its own so that it can be sent what a terminal's Ctrl-C sends."""

    def __init__(self, folder: Path, *options: str) -> None:
        environment = {**os.environ, "HOSTAGENT_VENV": sys.prefix, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        self._errors = (folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            [str(ROOT / "run-demo"), *options],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        self._lines: Queue[bytes] = Queue()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def record(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first record that fits; fails when none comes in time."""
        seen: list[bytes] = []
        try:
            while True:
                seen.append(self._lines.get(timeout=DEADLINE_S))
                record: dict[str, Any] = json.loads(seen[-1])
                if wanted(record):
                    return record
        except Empty:
            pytest.fail(f"no such record among {len(seen)}; the last: {seen[-3:]}")

    def interrupt(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=DEADLINE_S)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not pytest's own: the path of the demo's socket in it may be longer than a socket's may be."""
    with anyones_directory() as directory:
        yield directory


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield start
    for run in started:
        run.end()


def left_behind(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("hostagent-demo.")]


def test_lines_written_meanwhile_arrive_and_ctrl_c_leaves_nothing(demo: Callable[..., Demo], tmp_path: Path) -> None:
    run = demo("--only-demo")
    first = run.record(lambda record: "request 1 served" in record["message"])
    assert first["service"] == "demo"
    trace = run.record(lambda record: "request 8 failed" in record["message"])
    assert trace["message"].endswith("OutOfStock: teapot")
    assert run.interrupt() == 0, (tmp_path / "stderr").read_text()
    assert left_behind(tmp_path) == []


def test_it_stops_by_itself_after_the_seconds_asked_for(demo: Callable[..., Demo], tmp_path: Path) -> None:
    run = demo("--only-demo", "--seconds", "2")
    assert run.process.wait(timeout=DEADLINE_S) == 0, (tmp_path / "stderr").read_text()
    assert left_behind(tmp_path) == []


def test_this_machines_own_logs_arrive(demo: Callable[..., Demo], tmp_path: Path) -> None:
    run = demo()
    record = run.record(lambda record: str(record["path"]).startswith("/var/log/"))
    assert Path(record["path"]).is_file()
    assert run.interrupt() == 0, (tmp_path / "stderr").read_text()


@pytest.mark.parametrize("options", [["--seconds", "soon"], ["--seconds"], ["--no-such-option"]])
def test_a_wrong_option_is_a_usage_error(options: list[str]) -> None:
    run = subprocess.run([str(ROOT / "run-demo"), *options], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("run-demo: ")
