"""What a runtime's other threads have to say to the one that follows it: events as they come, answers to questions.

The listening thread and those that ask put things in, the following thread takes them out. It decides nothing about
them; only that a container's events are one event until somebody has looked.
"""

from __future__ import annotations

import threading

from hostagent.discovery.runtime.container import Container
from hostagent.discovery.runtime.session import ContainerFaultError, Event, EventStream, RuntimeFaultError

# What the runtime says about one container.
Answer = Container | ContainerFaultError | RuntimeFaultError | None


class Inbox:
    """Events and answers on their way to the following thread. A container's events are queued once."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self._lock = threading.Lock()
        self._events: dict[str, Event] = {}
        self._answers: list[tuple[str, Answer]] = []
        self._fault: RuntimeFaultError | None = None

    def put(self, event: Event) -> None:
        """Queue an event, behind those that came before it."""
        with self._lock:
            self._events[event.container_id] = event.merged(self._events.get(event.container_id))
            self.ready.set()

    def answer(self, container_id: str, facts: Answer) -> None:
        """Queue what the runtime answered about a container."""
        with self._lock:
            self._answers.append((container_id, facts))
            self.ready.set()

    def end(self, fault: RuntimeFaultError) -> None:
        """Say why no more events will come."""
        with self._lock:
            self._fault = fault
            self.ready.set()

    def take(self) -> tuple[list[Event], list[tuple[str, Answer]]]:
        """Events and answers; raises what ended the stream once there are neither."""
        with self._lock:
            taken = list(self._events.values()), self._answers
            if taken == ([], []) and self._fault is not None:
                raise self._fault
            self._events, self._answers = {}, []
            if self._fault is None:
                self.ready.clear()
        return taken


def listen(stream: EventStream, inbox: Inbox, subject: str) -> None:
    """Put every event of the stream into the inbox, and at its end the reason; a thread's whole work."""
    try:
        for event in stream:
            inbox.put(event)
        inbox.end(RuntimeFaultError(f"{subject} closed its event stream", "nothing to do: it is opened again"))
    except RuntimeFaultError as fault:
        inbox.end(fault)
    except Exception as error:  # noqa: BLE001 - a thread's top: whatever a runtime sent must not end the following
        inbox.end(RuntimeFaultError(f"{subject} sent events that can't be read: {error!r}"))
