"""What is known of one runtime: whether it answers, and its containers as they were last published.

The following thread puts into it what it learns, and only what is new goes on to whoever wants the changes. The
notices are read by other threads, so they have a lock; it asks the runtime nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from hostagent.discovery.runtime.container import Container, ContainerChange
from hostagent.discovery.runtime.session import ContainerFaultError, NotAContainerError, RuntimeFaultError
from hostagent.hookspecs import Notice

Publish = Callable[[ContainerChange], None]


class Picture:
    """A runtime's containers and troubles. One that nobody `expected` to be there is not missed."""

    def __init__(self, subject: str, *, expected: bool) -> None:
        self._subject = subject
        self._expected = expected
        self._known: dict[str, Container] = {}
        self._listed = False
        self._lock = threading.Lock()
        self._missed = 0
        self._runtime_notice: Notice | None = None
        self._container_notices: dict[str, Notice] = {}
        self.answered = False
        self.complete = False

    def notices(self) -> list[Notice]:
        """The runtime's own fault first, then each container that can't be described."""
        with self._lock:
            found = [self._runtime_notice] if self._runtime_notice and (self._expected or self.answered) else []
            if self._missed:
                message = f"{self._missed} containers came and went before the runtime could be asked about them"
                found.append(Notice(self._subject, message, "their output is lost; run such containers without --rm"))
            return found + list(self._container_notices.values())

    # -- the runtime ---------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The runtime answers: whatever was wrong with it is over."""
        with self._lock:
            self._runtime_notice = None
            self.answered = True

    def broken(self, fault: RuntimeFaultError, publish: Publish) -> None:
        """The runtime can't be followed; one that nobody expected has then nothing to list."""
        self.complete = False
        with self._lock:
            self._runtime_notice = Notice("containers", str(fault), fault.hint)  # a fault names its runtime itself
        if not self._expected:
            self._list_ends(publish)

    def completed(self, publish: Publish) -> None:
        """Every container that was there when this session began has been published."""
        self.complete = True
        self._list_ends(publish)

    def _list_ends(self, publish: Publish) -> None:
        if not self._listed:
            self._listed = True
            publish(ContainerChange("listed"))

    # -- its containers ------------------------------------------------------------------------------------------

    def known(self, container_id: str) -> bool:
        """Whether the container is in the picture."""
        return container_id in self._known

    def learned(self, container_id: str, facts: Container | None, publish: Publish) -> bool:
        """Put an answer into the picture, publish what changed; False when neither side knows the container."""
        before = self._known.get(container_id)
        with self._lock:
            self._container_notices.pop(container_id, None)
        if facts is not None:
            self._known[container_id] = facts
            if facts != before:
                publish(ContainerChange("changed" if before else "added", facts))
        elif before is not None:
            del self._known[container_id]
            publish(ContainerChange("removed", before))
        return facts is not None or before is not None

    def refused(self, container_id: str, fault: ContainerFaultError) -> None:
        """Remember that a container can't be described, until it can or is gone."""
        if not isinstance(fault, NotAContainerError):
            notice = Notice(f"container {container_id[:12]}", str(fault), f"reported by {self._subject}")
            with self._lock:
                self._container_notices[container_id] = notice

    def missed(self) -> None:
        """Count a container that was announced and never seen."""
        with self._lock:
            self._missed += 1

    def gone(self, listed: Iterable[str]) -> list[str]:
        """Containers in the picture that a list doesn't have."""
        listed = set(listed)
        with self._lock:
            self._container_notices = {key: one for key, one in self._container_notices.items() if key in listed}
        return [container_id for container_id in self._known if container_id not in listed]
