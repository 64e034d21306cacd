"""Keeps a picture of one runtime's containers: subscribe, then list, then follow, and begin again after a gap.

Docker and CRI discoveries hand in a way to open a session; this module owns the loop, the retries and the picture, and
publishes only what changed. It decides nothing about logs, and no fault of a runtime or of one container ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from hostagent.clock import Backoff, Clock
from hostagent.discovery.container import Container, ContainerChange
from hostagent.errors import HostagentError
from hostagent.hookspecs import Notice

# A runtime answers about a container only when it has finished starting it (0.3 s on a busy machine), and about a stuck
# one never. So several are asked about at a time, and none waits for another.
ASKING_THREADS = 4
# How long the loop may take to see that it should stop.
CHECK_INTERVAL_S = 0.5
# A subscription is confirmed by no runtime, so the first lists follow each other quickly.
FIRST_RECONCILES_S = (0.3, 1.0, 3.0)
# An event may be sent before the container it names can be asked about.
ASK_AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


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


Facts = Container | ContainerFaultError | RuntimeFaultError | None


class Inbox:
    """Events and answers on their way to the following thread. A container's events are queued once."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self._lock = threading.Lock()
        self._events: dict[str, Event] = {}
        self._answers: list[tuple[str, Facts]] = []
        self._fault: RuntimeFaultError | None = None

    def put(self, event: Event) -> None:
        """Queue an event, behind those that came before it."""
        with self._lock:
            self._events[event.container_id] = event.merged(self._events.get(event.container_id))
            self.ready.set()

    def answer(self, container_id: str, facts: Facts) -> None:
        """Queue what the runtime answered about a container."""
        with self._lock:
            self._answers.append((container_id, facts))
            self.ready.set()

    def end(self, fault: RuntimeFaultError) -> None:
        """Say why no more events will come."""
        with self._lock:
            self._fault = fault
            self.ready.set()

    def take(self) -> tuple[list[Event], list[tuple[str, Facts]]]:
        """Events and answers; raises what ended the stream once there are neither."""
        with self._lock:
            taken = list(self._events.values()), self._answers
            if taken == ([], []) and self._fault is not None:
                raise self._fault
            self._events, self._answers = {}, []
            if self._fault is None:
                self.ready.clear()
        return taken


class Follower:
    """A ContainerRuntime: one thread follows and holds the picture, one listens to events, a few ask for facts.

    A runtime that nobody `expected` to be there is looked for all the same, but not missed.
    """

    def __init__(
        self,
        subject: str,
        connect: Callable[[], Session],
        clock: Clock,
        reconcile_interval_s: float = 30.0,
        *,
        expected: bool = True,
        pods: bool = False,
    ) -> None:
        self.subject = subject
        self._pods = pods
        self._connect = connect
        self._clock = clock
        self._reconcile_interval_s = reconcile_interval_s
        self._expected = expected
        self._answered = False
        self._complete = False
        self._backoff = Backoff(0.2, 10.0)
        self._known: dict[str, Container] = {}
        self._lock = threading.Lock()
        self._listed = False
        self._missed = 0
        self._runtime_notice: Notice | None = None
        self._container_notices: dict[str, Notice] = {}

    def run(self, publish: Callable[[ContainerChange], None], stop: threading.Event) -> None:
        """Follow until `stop` is set, connecting again after every fault."""
        while not stop.is_set():
            try:
                self._follow(self._connect(), publish, stop)
            except RuntimeFaultError as fault:
                self._complete = False
                with self._lock:
                    self._runtime_notice = Notice(self.subject, str(fault), fault.hint)
                if not self._expected:
                    self.listed(publish)
                self._clock.wait(stop, self._backoff.next_s())

    def notices(self) -> list[Notice]:
        """The runtime's own fault first, then each container that can't be described."""
        with self._lock:
            found = [self._runtime_notice] if self._runtime_notice and (self._expected or self._answered) else []
            if self._missed:
                message = f"{self._missed} containers came and went before the runtime could be asked about them"
                found.append(Notice(self.subject, message, "their output is lost; run such containers without --rm"))
            return found + list(self._container_notices.values())

    def knows_pods(self) -> bool:
        """Whether it has told which containers Kubernetes' pods have, and still answers."""
        return self._pods and self._complete

    @property
    def answered(self) -> bool:
        """Whether the runtime was there at any time."""
        return self._answered

    def connected(self) -> None:
        """The runtime answers: whatever was wrong with it is over."""
        with self._lock:
            self._runtime_notice = None
            self._answered = True
        self._backoff.reset()

    def learned(self, container_id: str, facts: Container | None, publish: Callable[[ContainerChange], None]) -> bool:
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
            notice = Notice(f"container {container_id[:12]}", str(fault), f"reported by {self.subject}")
            with self._lock:
                self._container_notices[container_id] = notice

    def listed(self, publish: Callable[[ContainerChange], None]) -> None:
        """Everything that was there when the first session began has been published."""
        if not self._listed:
            self._listed = True
            publish(ContainerChange("listed"))

    def completed(self, publish: Callable[[ContainerChange], None]) -> None:
        """Every container that was there when this session began has been published."""
        self._complete = True
        self.listed(publish)

    def missed(self) -> None:
        """Count a container that was announced and never seen."""
        with self._lock:
            self._missed += 1

    def known(self, container_id: str) -> bool:
        """Whether the container is in the picture."""
        return container_id in self._known

    def gone(self, listed: Iterable[str]) -> list[str]:
        """Containers in the picture that a list doesn't have."""
        listed = set(listed)
        with self._lock:
            self._container_notices = {key: one for key, one in self._container_notices.items() if key in listed}
        return [container_id for container_id in self._known if container_id not in listed]

    def _follow(self, session: Session, publish: Callable[[ContainerChange], None], stop: threading.Event) -> None:
        inbox = Inbox()
        pool = ThreadPoolExecutor(ASKING_THREADS, thread_name_prefix=f"ask:{self.subject}")
        stream: EventStream | None = None
        listener: threading.Thread | None = None
        try:
            stream = session.subscribe()
            name = f"events:{self.subject}"
            listener = threading.Thread(target=_listen, args=(stream, inbox, self.subject), name=name, daemon=True)
            listener.start()
            following = _Round(self, session, inbox, pool, publish=publish, clock=self._clock)
            following.run(self._reconcile_interval_s, stop)
        finally:
            session.close()
            if stream is not None:
                stream.close()
            if listener is not None:
                listener.join()
            pool.shutdown(cancel_futures=True)


class _Look:
    """A question about a container that is under way, and whether the answer will be old by then."""

    def __init__(self, event: Event, tries: int) -> None:
        self.event = event
        self.tries = tries
        self.again = False


class _Awaited(NamedTuple):
    """A new container that the runtime did not know when it was asked."""

    event: Event
    tries: int
    at_s: float


class _Round:
    """One session's share of following: begins with a list, ends with the session."""

    def __init__(
        self,
        follower: Follower,
        session: Session,
        inbox: Inbox,
        pool: ThreadPoolExecutor,
        *,
        publish: Callable[[ContainerChange], None],
        clock: Clock,
    ) -> None:
        self._follower = follower
        self._session = session
        self._inbox = inbox
        self._pool = pool
        self._publish = publish
        self._clock = clock
        self._tokens: dict[str, Hashable] = {}
        self._looks: dict[str, _Look] = {}
        self._awaited: dict[str, _Awaited] = {}
        # Ids come only once. The events of a container that is gone for good may still be on their way.
        self._over: set[str] = set()
        self._over_before: set[str] = set()
        self._unlisted: set[str] = set()

    def run(self, reconcile_interval_s: float, stop: threading.Event) -> None:
        """Follow until `stop` is set or the runtime fails."""
        # What was known before the gap may have changed in it without a trace: the first list finds every token new.
        self._reconcile()
        self._unlisted = set(self._looks)
        self._follower.connected()
        pauses_s = iter(FIRST_RECONCILES_S)
        reconcile_at_s = self._clock.monotonic_s() + next(pauses_s)
        while not stop.is_set():
            next_s = min([reconcile_at_s, *(one.at_s for one in self._awaited.values())])
            self._clock.wait(self._inbox.ready, min(max(next_s - self._clock.monotonic_s(), 0.0), CHECK_INTERVAL_S))
            events, answers = self._inbox.take()
            for container_id, facts in answers:
                self._take_in(container_id, facts)
                self._unlisted.discard(container_id)
            if not self._unlisted:
                self._follower.completed(self._publish)
            for event in events:
                self._look(event)
            now_s = self._clock.monotonic_s()
            for one in [one for one in self._awaited.values() if one.at_s <= now_s]:
                self._look(one.event)
            if now_s >= reconcile_at_s:
                self._reconcile()
                reconcile_at_s = self._clock.monotonic_s() + next(pauses_s, reconcile_interval_s)

    def _reconcile(self) -> None:
        """Ask about every container whose token differs from the last one, and about those that are listed no more."""
        tokens = self._session.list()
        changed = [key for key, token in tokens.items() if key not in self._tokens or self._tokens[key] != token]
        for container_id in [*changed, *self._follower.gone(tokens)]:
            self._look(Event(container_id))
        self._tokens = dict(tokens)
        self._over, self._over_before = set(), self._over

    def _look(self, event: Event) -> None:
        container_id = event.container_id
        if under_way := self._looks.get(container_id):
            under_way.event = event.merged(under_way.event)
            under_way.again = True
            return
        if container_id in self._over or container_id in self._over_before:
            return
        before = self._awaited.pop(container_id, None)
        event = event.merged(before.event if before else None)
        self._looks[container_id] = _Look(event, before.tries if before else 0)
        if event.expected and not self._follower.known(container_id) and (seen := self._session.glance(container_id)):
            self._follower.learned(container_id, seen, self._publish)
        self._pool.submit(self._ask, container_id)

    def _ask(self, container_id: str) -> None:
        try:
            facts: Facts = self._session.describe(container_id)
        except (ContainerFaultError, RuntimeFaultError) as fault:
            facts = fault
        except Exception as error:  # noqa: BLE001 - a thread's top: a hostile answer must not leave the question open
            facts = ContainerFaultError(f"its description can't be understood: {error!r}")
        self._inbox.answer(container_id, facts)

    def _take_in(self, container_id: str, facts: Facts) -> None:
        look = self._looks.pop(container_id)
        if isinstance(facts, RuntimeFaultError):
            raise facts
        if isinstance(facts, ContainerFaultError):
            self._follower.refused(container_id, facts)
            # The next reconciliation asks again.
            self._tokens.pop(container_id, None)
        elif self._follower.learned(container_id, facts, self._publish):
            if facts is None:
                self._over.add(container_id)
        elif look.event.expected:
            self._await(look)
        if look.again:
            self._look(look.event)

    def _await(self, look: _Look) -> None:
        if look.tries < len(ASK_AGAIN_S):
            at_s = self._clock.monotonic_s() + ASK_AGAIN_S[look.tries]
            self._awaited[look.event.container_id] = _Awaited(look.event, look.tries + 1, at_s)
        elif look.event.ran:
            self._follower.missed()


def _listen(stream: EventStream, inbox: Inbox, subject: str) -> None:
    try:
        for event in stream:
            inbox.put(event)
        inbox.end(RuntimeFaultError(f"{subject} closed its event stream", "nothing to do: it is opened again"))
    except RuntimeFaultError as fault:
        inbox.end(fault)
    except Exception as error:  # noqa: BLE001 - a thread's top: whatever a runtime sent must not end the following
        inbox.end(RuntimeFaultError(f"{subject} sent events that can't be read: {error!r}"))
