"""A record that begins in one file and ends in the next, where rotated files are wanted, too, and keep their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for

STAMP = "2026-01-01T00:00:00.1Z stdout"


class Pod:
    """A log that is rotated as a kubelet does it, and what has arrived of it."""

    def __init__(self, directory: Path, agent: Agent, backend: Backend) -> None:
        self.agent = agent
        self.messages: list[str] = []
        self._log = directory / "0.log"
        self._log.touch()
        self._backend = backend

    def write(self, *texts: str) -> None:
        """A text that ends in a plus sign is a part, and goes on with the next."""
        with self._log.open("a") as log:
            for text in texts:
                log.write(f"{STAMP} {'P' if text.endswith('+') else 'F'} {text.removesuffix('+')}\n")

    def rotate(self, stamp: int) -> None:
        self._log.rename(f"{self._log}.{stamp}")
        self._log.touch()

    def is_older(self) -> bool:
        """Whether a file that is made now is younger than the log."""
        scratch = self._log.with_name("scratch")
        scratch.unlink(missing_ok=True)
        scratch.touch()
        return scratch.stat().st_mtime_ns > self._log.stat().st_mtime_ns

    def came(self, number: int) -> Callable[[], bool]:
        def enough() -> bool:
            for arrival in self._backend.new_arrivals():
                self.messages += [str(record["message"]) for record in arrival.records()]
            return len(self.messages) >= number

        return enough

    def wait_for(self, *messages: str) -> None:
        wait_for(self.came(len(messages)), "every record", so_far=lambda: f"{self.messages} {self.agent.tail()}")
        assert self.messages == list(messages)


@contextmanager
def followed(directory: Path, backend: Backend, **options: str) -> Iterator[Pod]:
    """A pod's log and the agent that follows it; the options are the source's."""
    logs = directory / "logs"
    include = [f"{logs}/0.log", f"{logs}/0.log.[0-9]*"]
    config = {
        "sources": {"pods": {"type": "file", "include": include, "format": "cri", **options}},
        "outputs": {"main": {"type": "http", "url": backend.url(), "block": {"max_wait": "50ms"}}},
    }
    logs.mkdir()
    with Agent(directory / "agent", config) as agent:
        agent.start()
        agent.wait_ready()
        yield Pod(logs, agent, backend)


@pytest.fixture
def pod(tmp_path: Path, backend: Backend) -> Iterator[Pod]:
    with followed(tmp_path, backend) as one:
        yield one


def test_a_record_goes_on_in_the_next_file(pod: Pod) -> None:
    pod.write("one", "two ")
    pod.write("be+", "gin+")
    pod.wait_for("one", "two ")
    pod.rotate(1)
    pod.write("ning", "three")
    pod.wait_for("one", "two ", "beginning", "three")


def test_rotations_that_are_all_seen_at_once_stay_in_order(pod: Pod) -> None:
    pod.write("one", "a+")
    pod.wait_for("one")
    with pod.agent.halted():
        for stamp, letter in enumerate("bcd"):
            pod.rotate(stamp)
            pod.write(letter, f"{letter} whole", "a+")
        pod.rotate(9)
        pod.write("e")
    pod.wait_for("one", "ab", "b whole", "ac", "c whole", "ad", "d whole", "ae")


def test_a_record_goes_on_behind_a_file_that_was_rotated_away_empty(pod: Pod) -> None:
    pod.write("one", "be+")
    pod.wait_for("one")
    with pod.agent.halted():
        for stamp in range(3):
            pod.rotate(stamp)
        pod.write("ginning", "two")
    pod.wait_for("one", "beginning", "two")
    pod.write("three+")
    pod.rotate(7)
    pod.rotate(8)
    pod.write("four")
    pod.wait_for("one", "beginning", "two", "threefour")


def test_a_rotated_file_is_written_to_for_a_moment(pod: Pod, tmp_path: Path) -> None:
    """Until the runtime has opened the new file, what a container prints goes to the old one."""
    with (tmp_path / "logs" / "0.log").open("a") as runtime:
        runtime.write(f"{STAMP} F one\n{STAMP} P be\n")
        runtime.flush()
        pod.wait_for("one")
        pod.rotate(1)
        pod.write("ning")
        runtime.write(f"{STAMP} P gin\n")
    pod.wait_for("one", "beginning")


def test_an_end_that_never_comes_holds_nobody_up(tmp_path: Path, backend: Backend) -> None:
    with followed(tmp_path, backend, close_grace="500ms") as pod:
        pod.write("one", "open+")
        pod.wait_for("one")
        pod.rotate(1)
        pod.wait_for("one", "open")
        pod.write("two")
        pod.wait_for("one", "open", "two")


def test_a_log_that_is_rotated_faster_than_names_are_looked_at_is_read_in_order(pod: Pod) -> None:
    """When a name's event is read, it may have been two other files' since; the newest must not be read first."""
    written: list[str] = []

    def write(count: int) -> None:
        texts = [f"line {len(written) + number}" for number in range(count)]
        written.extend(texts)
        pod.write(*texts)

    for number in range(15):
        write(1 + number % 3)
        for turn in range(1 + number % 4):
            # No faster than the kernel's clock, so that files have an age.
            wait_for(pod.is_older, "the next tick", poll_s=0.001)
            pod.rotate(100 * number + turn)
            write(1)
        pod.wait_for(*written)
