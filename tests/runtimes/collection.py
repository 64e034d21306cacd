"""An agent that collects from real runtimes into a real backend, and what has arrived there, by container."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.agent import AHEAD_OF_OTHERS, Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for


class Collection:
    """The agent, its backend, and every record that came, in order of arrival, under its container's id."""

    def __init__(self, agent: Agent, backend: Backend) -> None:
        self.agent = agent
        self._backend = backend
        self._records: dict[str, list[dict[str, Any]]] = defaultdict(list)

    @classmethod
    @contextlib.contextmanager
    def of(cls, directory: Path, *runtimes: str, **options: object) -> Iterator[Collection]:
        """An agent with one source of containers; `runtimes` and `options` are that source's."""
        with Backend(directory / "backend") as backend:
            config = {
                "sources": {"containers": {"type": "containers", "runtimes": list(runtimes), **options}},
                "outputs": {"main": {"type": "http", "url": backend.url(), "block": {"max_wait": "100ms"}}},
            }
            with Agent(directory / "agent", config) as agent:
                agent.wrapper = [*AHEAD_OF_OTHERS]
                yield cls(agent, backend)

    def records(self) -> dict[str, list[dict[str, Any]]]:
        for arrival in self._backend.new_arrivals():
            for record in arrival.records():
                self._records[str(record.get("container_id", ""))].append(record)
        return self._records

    def take_new(self) -> Iterator[dict[str, Any]]:
        """What has come since the last call of any of these, without keeping it: for millions of records."""
        for arrival in self._backend.new_arrivals():
            yield from arrival.records()

    def messages(self, container_id: str) -> list[str]:
        return [str(record["message"]) for record in self.records()[container_id]]

    def wait_for(self, expected: dict[str, list[str]], timeout_s: float = 60.0) -> None:
        """Wait until exactly these messages have come from these containers; more or others fail at once."""

        def lacking() -> dict[str, int]:
            short = {}
            for container_id, messages in expected.items():
                came = self.messages(container_id)
                assert came == messages[: len(came)], f"{container_id[:12]}: {came[-3:]} after {len(came) - 1} records"
                if len(came) < len(messages):
                    short[container_id[:12]] = len(messages) - len(came)
            return short

        def so_far() -> str:
            short = lacking()
            status = self.agent.call("status").stdout
            return f"{sum(short.values())} lacking from {len(short)}: {short}. {self.agent.tail()}\nstatus: {status}"

        wait_for(lambda: not lacking(), "every record of every container", timeout_s=timeout_s, so_far=so_far)
