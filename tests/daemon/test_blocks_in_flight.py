"""A block that was on its way when the agent was killed comes again under its id, with or without its files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for


class Sent:
    """An agent that follows a folder and was killed while its first block, of two files, was on its way."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.backend = backend
        self.arrived: list[str] = []
        self.agent = Agent(
            folder / "agent",
            {
                "sources": {"app": {"type": "file", "include": [f"{self.logs}/*.log"]}},
                "outputs": {"main": {"type": "http", "url": backend.url(), "block": {"max_wait": "300ms"}}},
            },
        )

    def write(self, name: str, *lines: str) -> None:
        with (self.logs / name).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def start(self) -> None:
        self.agent.start()
        self.agent.wait_ready()

    def kill_with_a_block_on_its_way(self, kind: str) -> None:
        self.write("gone.log", "g0", "g1", "g2", "g3")
        self.write("kept.log", "k0", "k1", "k2", "k3")
        self.backend.behave(kind)
        self.start()
        wait_for(lambda: self.backend.stats()["refused"] > 0, "a request", so_far=self.agent.tail)
        self.agent.kill()
        self.backend.behave()

    def expect(self, *lines: str) -> None:
        def here() -> list[str]:
            for arrival in self.backend.new_arrivals():
                self.arrived += [record["message"] for record in arrival.records()]
            return self.arrived

        def so_far() -> str:
            return f"{self.arrived}\n{self.agent.tail()}"

        wait_for(lambda: len(here()) >= len(lines), f"{len(lines)} lines", so_far=so_far)
        assert self.agent.stop() == 0
        assert sorted(here()) == sorted(lines)

    def losses(self) -> list[tuple[int, int]]:
        found = self.agent.answer("audit")
        return [(one["account"]["lost"], one["unsized_losses"]) for one in found["sources"]]


GONE = ("g0", "g1", "g2", "g3")
KEPT = ("k0", "k1", "k2", "k3")


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[Sent]:
    with Backend(tmp_path / "backend") as backend:
        world = Sent(tmp_path, backend)
        with world.agent:
            yield world


def test_what_the_backend_has_stored_does_not_come_twice_when_a_file_of_the_block_is_gone(sent: Sent) -> None:
    sent.kill_with_a_block_on_its_way("stored_then_reset")
    (sent.logs / "gone.log").unlink()
    sent.start()
    sent.write("kept.log", "k4")
    sent.expect(*GONE, *KEPT, "k4")


def test_what_the_backend_has_not_stored_comes_without_the_file_that_is_gone(sent: Sent) -> None:
    sent.kill_with_a_block_on_its_way("stall")
    (sent.logs / "gone.log").unlink()
    sent.start()
    sent.write("kept.log", "k4")
    sent.expect(*KEPT, "k4")
    assert sent.losses() == [(0, 1)]


def test_a_file_that_comes_back_after_its_block_went_without_it_is_not_taken_for_sent(sent: Sent) -> None:
    sent.kill_with_a_block_on_its_way("stall")
    (sent.logs / "gone.log").rename(sent.logs.parent / "elsewhere")
    # The rest of the block is stored under the block's id, and the agent does not learn of it.
    sent.backend.behave("stored_then_reset")
    refused = sent.backend.stats()["refused"]
    sent.start()
    wait_for(lambda: sent.backend.stats()["refused"] > refused, "the rest of the block", so_far=sent.agent.tail)
    sent.agent.kill()
    sent.backend.behave()
    (sent.logs.parent / "elsewhere").rename(sent.logs / "gone.log")
    sent.start()
    sent.expect(*GONE, *KEPT)
