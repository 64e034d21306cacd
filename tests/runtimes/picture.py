"""Runs a runtime's discovery in a thread and keeps what it publishes, as the rest of the agent would."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from hostagent.discovery.runtime.container import Container, ContainerChange, ContainerRuntime
from hostagent.hookspecs import Notice
from tests.support.waiting import wait_for


class Picture:
    """The containers as published: those there now, and every change in order."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.changes: list[tuple[str, Container]] = []
        self.now: dict[str, Container] = {}
        self.listed: frozenset[str] | None = None
        self.faults: list[str] = []

    @classmethod
    @contextlib.contextmanager
    def of(cls, runtime: ContainerRuntime) -> Iterator[Picture]:
        picture = cls(runtime)
        thread = threading.Thread(target=runtime.run, args=(picture.publish, picture._stop))
        thread.start()
        try:
            yield picture
        finally:
            picture._stop.set()
            thread.join(30)
            assert not thread.is_alive(), "the discovery did not stop"
        # A consumer relies on this: nothing changes or goes that has not come.
        assert picture.faults == []

    def publish(self, change: ContainerChange) -> None:
        with self._lock:
            container = change.container
            if container is None:
                if self.listed is not None:
                    self.faults.append("listed twice")
                self.listed = frozenset(self.now)
                return
            known = container.id in self.now
            if known == (change.kind == "added"):
                self.faults.append(f"{change.kind} of a container that was {'' if known else 'not '}there")
            self.changes.append((change.kind, container))
            if change.kind == "removed":
                self.now.pop(container.id, None)
            else:
                self.now[container.id] = container

    def wait_for(self, container_id: str, condition: Callable[[Container], bool] = lambda _: True) -> Container:
        def holds() -> bool:
            found = self.now.get(container_id)
            return found is not None and condition(found)

        wait_for(holds, f"container {container_id[:12]} as expected, now {self.now.get(container_id)}")
        return self.now[container_id]

    def wait_gone(self, container_id: str) -> None:
        wait_for(lambda: container_id not in self.now, f"removal of {container_id[:12]}")

    def seen(self) -> set[str]:
        return {container.id for _, container in list(self.changes)}

    def wait_notice(self, text: str) -> Notice:
        wait_for(lambda: any(text in str(one) for one in self._runtime.notices()), f"a notice with {text!r}")
        return next(one for one in self._runtime.notices() if text in str(one))

    def wait_no_notices(self) -> None:
        wait_for(lambda: not self._runtime.notices(), "the end of all notices")
