"""Follows one runtime for as long as the agent runs: opens a session, has a round on it, and begins again after a gap.

Docker and CRI discoveries hand in a way to open a session; this module owns the threads of each and the retries, and
publishes only what changed. It decides nothing about logs, and no fault of a runtime or of one container ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hostagent.clock import Backoff, Clock
from hostagent.discovery.runtime.inbox import Inbox, listen
from hostagent.discovery.runtime.picture import Picture, Publish
from hostagent.discovery.runtime.round import Round
from hostagent.discovery.runtime.session import EventStream, RuntimeFaultError, Session
from hostagent.hookspecs import Notice

# A runtime answers about a container only when it has finished starting it (0.3 s on a busy machine), and about a stuck
# one never. So several are asked about at a time, and none waits for another.
ASKING_THREADS = 4


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
        self._backoff = Backoff(0.2, 10.0)
        self._picture = Picture(subject, expected=expected)

    def run(self, publish: Publish, stop: threading.Event) -> None:
        """Follow until `stop` is set, connecting again after every fault."""
        while not stop.is_set():
            try:
                self._follow(self._connect(), publish, stop)
            except RuntimeFaultError as fault:
                self._picture.broken(fault, publish)
                self._clock.wait(stop, self._backoff.next_s())

    def notices(self) -> list[Notice]:
        """The runtime's own fault first, then each container that can't be described."""
        return self._picture.notices()

    def knows_pods(self) -> bool:
        """Whether it has told which containers Kubernetes' pods have, and still answers."""
        return self._pods and self._picture.complete

    @property
    def answered(self) -> bool:
        """Whether the runtime was there at any time."""
        return self._picture.answered

    def _connected(self) -> None:
        self._picture.connected()
        self._backoff.reset()

    def _follow(self, session: Session, publish: Publish, stop: threading.Event) -> None:
        inbox = Inbox()
        pool = ThreadPoolExecutor(ASKING_THREADS, thread_name_prefix=f"ask:{self.subject}")
        stream: EventStream | None = None
        listener: threading.Thread | None = None
        try:
            stream = session.subscribe()
            name = f"events:{self.subject}"
            listener = threading.Thread(target=listen, args=(stream, inbox, self.subject), name=name, daemon=True)
            listener.start()
            following = Round(session, self._picture, inbox, pool, publish=publish, clock=self._clock)
            following.begin()
            self._connected()
            following.run(self._reconcile_interval_s, stop)
        finally:
            session.close()
            if stream is not None:
                stream.close()
            if listener is not None:
                listener.join()
            pool.shutdown(cancel_futures=True)
