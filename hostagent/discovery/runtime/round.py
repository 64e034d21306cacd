"""One session's share of following: list, ask about whatever is new, then follow the events until the session ends.

It owns the questions that are under way and when to ask again; the answers go into the picture, which outlives it. It
decides nothing about logs, and raises only what ends the session: a fault of the runtime as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.discovery.runtime.inbox import Answer, Inbox
from hostagent.discovery.runtime.picture import Picture, Publish
from hostagent.discovery.runtime.session import ContainerFaultError, Event, RuntimeFaultError, Session

# How long the loop may take to see that it should stop.
CHECK_INTERVAL_S = 0.5
# A subscription is confirmed by no runtime, so the first lists follow each other quickly.
FIRST_RECONCILES_S = (0.3, 1.0, 3.0)
# An event may be sent before the container it names can be asked about.
ASK_AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


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


class Round:
    """Follows on one session, from its first list to its end."""

    def __init__(
        self,
        session: Session,
        picture: Picture,
        inbox: Inbox,
        pool: ThreadPoolExecutor,
        *,
        publish: Publish,
        clock: Clock,
    ) -> None:
        self._session = session
        self._picture = picture
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

    def begin(self) -> None:
        """Make the first list and ask about everything in it: what was known may have changed without a trace."""
        self._reconcile()
        self._unlisted = set(self._looks)

    def run(self, reconcile_interval_s: float, stop: threading.Event) -> None:
        """Follow until `stop` is set or the runtime fails."""
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
                self._picture.completed(self._publish)
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
        for container_id in [*changed, *self._picture.gone(tokens)]:
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
        if event.expected and not self._picture.known(container_id) and (seen := self._session.glance(container_id)):
            self._picture.learned(container_id, seen, self._publish)
        self._pool.submit(self._ask, container_id)

    def _ask(self, container_id: str) -> None:
        try:
            facts: Answer = self._session.describe(container_id)
        except (ContainerFaultError, RuntimeFaultError) as fault:
            facts = fault
        except Exception as error:  # noqa: BLE001 - a thread's top: a hostile answer must not leave the question open
            facts = ContainerFaultError(f"its description can't be understood: {error!r}")
        self._inbox.answer(container_id, facts)

    def _take_in(self, container_id: str, facts: Answer) -> None:
        look = self._looks.pop(container_id)
        if isinstance(facts, RuntimeFaultError):
            raise facts
        if isinstance(facts, ContainerFaultError):
            self._picture.refused(container_id, facts)
            # The next reconciliation asks again.
            self._tokens.pop(container_id, None)
        elif self._picture.learned(container_id, facts, self._publish):
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
            self._picture.missed()
