"""Positions belong to files and outputs, not to names in a configuration: renaming a source repeats nothing."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.support.agent import Agent
from tests.support.waiting import wait_for


class Follower:
    """An agent that follows one file under a source whose name changes, and writes to a file."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "logs" / "app.log"
        self.log.parent.mkdir()
        self.out = folder / "out.ndjson"
        self.agent = Agent(
            folder / "agent",
            {
                "sources": {"one": self.source()},
                "outputs": {"out": {"type": "file", "path": str(self.out), "block": {"max_wait": "50ms"}}},
            },
        )

    def source(self, pattern: str = "*.log") -> dict[str, Any]:
        return {"type": "file", "include": [str(self.log.parent / pattern)]}

    def write(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)

    def reload(self, sources: dict[str, Any]) -> None:
        """Change the configuration and wait until the running agent has its sources."""
        self.agent.config["sources"] = sources
        self.agent.command("run")
        self.agent.signal(signal.SIGHUP)

        def in_force() -> bool:
            status, body = self.agent.get("/status")
            return status == 200 and {one["name"] for one in json.loads(body)["sources"]} == set(sources)

        wait_for(in_force, f"sources {sorted(sources)}", so_far=self.agent.tail)

    def messages(self) -> list[str]:
        if not self.out.exists():
            return []
        return [json.loads(line)["message"] for line in self.out.read_text().splitlines()]

    def expect(self, *messages: str) -> None:
        wait_for(lambda: len(self.messages()) >= len(messages), f"{messages}", so_far=lambda: str(self.messages()))
        assert self.messages() == list(messages)


def test_a_source_renamed_while_running_and_across_a_restart_repeats_nothing(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    with follower.agent as agent:
        agent.start()
        agent.wait_ready()
        follower.write("l1\n")
        follower.expect("l1")
        follower.reload({"two": follower.source()})
        follower.write("l2\n")
        follower.expect("l1", "l2")
        agent.stop()
        agent.config["sources"] = {"three": follower.source()}
        agent.start()
        agent.wait_ready()
        follower.write("l3\n")
        follower.expect("l1", "l2", "l3")


def test_a_source_that_was_taken_out_and_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    with follower.agent as agent, follower.log.open("a") as writer:
        agent.start()
        agent.wait_ready()
        writer.write("l1\nhalf of l2,")
        writer.flush()
        follower.expect("l1")
        follower.reload({"other": follower.source("*.else")})
        wait_for(lambda: os.stat(follower.log).st_ino not in agent.open_inodes(), "the file to be let go")
        writer.write(" the rest\nl3\n")
        writer.flush()
        follower.reload({"one": follower.source()})
        follower.expect("l1", "half of l2, the rest", "l3")
