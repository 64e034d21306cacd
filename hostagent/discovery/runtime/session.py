"""What a container runtime must offer to be followed: a session, its events, and the faults it may raise.

Docker's and CRI's discoveries are sessions; the following beside it uses nothing of them but what stands here. It holds
no state and speaks to nobody.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple, Protocol

from hostagent.discovery.runtime.container import Container
from hostagent.errors import HostagentError


class RuntimeFaultError(HostagentError):
    """The runtime as a whole can't be followed right now; `hint` says what an operator can do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ContainerFaultError(HostagentError):
    """One container can't be described; the others are not concerned."""


class NotAContainerError(ContainerFaultError):
    """The id belongs to something that has no logs of its own: the sandbox of a pod."""


class Event(NamedTuple):
    """A container that something happened to.

    `expected`: it is new, so the runtime should know it, if not now then soon. `ran`: it may have written something.
    """

    container_id: str
    expected: bool = False
    ran: bool = False

    def merged(self, other: Event | None) -> Event:
        """Both events in one."""
        if other is None:
            return self
        return Event(self.container_id, self.expected or other.expected, self.ran or other.ran)


class EventStream(Protocol):
    """A subscription that is being served already."""

    def __iter__(self) -> Iterator[Event]:
        """What happens from now on; ends, or raises RuntimeFaultError, when the stream does."""

    def close(self) -> None:
        """End the iteration from another thread."""


class Session(Protocol):
    """A connection to a runtime. Every call raises RuntimeFaultError when the runtime doesn't answer as it should."""

    def subscribe(self) -> EventStream:
        """Begin to receive events."""

    def list(self) -> Mapping[str, Hashable]:
        """Every container's id, with a value that differs when a new look at the container is worth while."""

    def glance(self, container_id: str) -> Container | None:
        """What can be known at once of a container that was only just created; None if nothing can."""

    def describe(self, container_id: str) -> Container | None:
        """The container's facts; None when the runtime doesn't know it (any more). May raise ContainerFaultError.

        Called from several threads at once.
        """

    def close(self) -> None:
        """Give the connections back; calls that wait for an answer end."""
