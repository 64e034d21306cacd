"""The event streams a CRI runtime may offer, each as a stream of containers to look at again.

containerd has its own since long ago, CRI got one late, and a runtime with neither is listed again and again. Only ids
leave this module: the facts are asked for afterwards, so an event that lies can do no harm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from hostagent.clock import Clock
from hostagent.discovery.cri.api import CriApi, UnsupportedError
from hostagent.discovery.cri.proto import containerd_pb2 as containerd
from hostagent.discovery.cri.proto import cri_pb2 as cri
from hostagent.discovery.runtime.session import Event, EventStream

CREATE = "/containers/create"
START = "/tasks/start"
EXIT = "/tasks/exit"
TOPICS = (CREATE, START, EXIT, "/containers/delete", "/tasks/oom", "/tasks/paused", "/tasks/resumed")
# A container's log stays after its end until the kubelet removes the pod, so a second is soon enough.
LIST_INTERVAL_S = 1.0


class ContainerdEvents:
    """The stream that containerd itself has."""

    def __init__(self, api: CriApi) -> None:
        self._stream = api.containerd_events(TOPICS)

    def __iter__(self) -> Iterator[Event]:
        for envelope in self._stream:
            if envelope.topic == EXIT:
                ended = containerd.TaskExit.FromString(envelope.event.value)
                # Probes are executed in a container every few seconds; only the end of its own process counts.
                if ended.id in ("", ended.container_id):
                    yield Event(ended.container_id)
                continue
            subject = containerd.Subject.FromString(envelope.event.value)
            started = envelope.topic == START
            yield Event(subject.container_id, expected=started or envelope.topic == CREATE, ran=started)

    def close(self) -> None:
        """End the iteration."""
        self._stream.close()


class CriEvents:
    """CRI's GetContainerEvents."""

    def __init__(self, api: CriApi) -> None:
        self._stream = api.container_events()

    def __iter__(self) -> Iterator[Event]:
        for event in self._stream:
            started = event.container_event_type == cri.CONTAINER_STARTED_EVENT
            created = event.container_event_type == cri.CONTAINER_CREATED_EVENT
            yield Event(event.container_id, expected=started or created, ran=started)

    def close(self) -> None:
        """End the iteration."""
        self._stream.close()


class ListedEvents:
    """What changed between one list and the next."""

    def __init__(self, api: CriApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        before: dict[str, int] = {}
        while not self._closed.is_set():
            now = {one.id: int(one.state) for one in self._api.containers()}
            for container_id in before.keys() | now.keys():
                if before.get(container_id) != now.get(container_id):
                    yield Event(container_id)
            before = now
            self._clock.wait(self._closed, LIST_INTERVAL_S)

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()


class FirstOffered:
    """The first of several streams that the runtime has; it says that it lacks one only when that is read."""

    def __init__(self, openers: Sequence[Callable[[], EventStream]]) -> None:
        self._openers = openers
        self._lock = threading.Lock()
        self._closed = False
        self._stream = openers[0]()

    def __iter__(self) -> Iterator[Event]:
        for opener in self._openers[1:]:
            try:
                yield from self._stream
                return
            except UnsupportedError:
                with self._lock:
                    if self._closed:
                        return
                    self._stream = opener()
        yield from self._stream

    def close(self) -> None:
        """End whichever is being read."""
        with self._lock:
            self._closed = True
            self._stream.close()
