"""A spool that could not be opened when its output was built: opened again and again, until it can be.

Meanwhile the output delivers straight from memory and what can't be delivered waits in its files; a file that is
deleted is held open. Owns when the next try is due and what `status` says about it. It moves no blocks: that is the
backlog's, which calls it in the sender's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hostagent.clock import Backoff, Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.spool.spool import Spool

log = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 10.0


class LateSpool:
    """`open_spool` raises StateError as long as it can't be opened; `fault` is what it said at first."""

    def __init__(self, output: str, open_spool: Callable[[], Spool], clock: Clock, fault: StateError) -> None:
        self._output = output
        self._open_spool = open_spool
        self._clock = clock
        self._fault = str(fault)
        self._backoff = Backoff(longest_s=LONGEST_BACKOFF_S)
        self._due_s = clock.monotonic_s() + self._backoff.next_s()

    def due_in_s(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._due_s - self._clock.monotonic_s())

    def open(self) -> Spool | None:
        """Try now; None when it still can't be opened."""
        try:
            spool = self._open_spool()
        except StateError as error:
            self._fault = str(error)
            self._due_s = self._clock.monotonic_s() + self._backoff.next_s()
            return None
        log.info("output %s: its spool is open now, %d blocks wait in it", self._output, spool.stats().blocks)
        return spool

    def notice(self) -> Notice:
        """What an operator has to do."""
        hint = "it is tried again by itself; until then records are delivered without it, and those it holds come later"
        return Notice(f"spool {self._output}", f"it can't be opened: {self._fault}", hint)
