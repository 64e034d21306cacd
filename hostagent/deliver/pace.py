"""How fast a spool is being drained, and so whether what is read now had better wait than go through the disk, too.

After a long outage the files hold more than the spool does. If all of that queued up in the spool, it would never be
empty: every block would be written, synced and read again although the backend is well. Measures only; the backlog
decides.
"""

from __future__ import annotations

from hostagent.clock import Clock
from hostagent.state.spool.spool import Spool

# What is read waits in memory, and the rest in its files, if the spool will be empty within this time.
SOON_S = 15.0


class Pace:
    """The drain of one spool since the output was last down, or the spool empty."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._drained_bytes = 0

    def reset(self) -> None:
        """What was measured means nothing any more."""
        self._since_s = None
        self._drained_bytes = 0

    def drained(self, raw_bytes: int) -> None:
        """A block of so many bytes of log is done; time is taken from the first one on."""
        if self._since_s is None:
            self._since_s = self._clock.monotonic_s()
        else:
            self._drained_bytes += raw_bytes

    def soon_empty(self, spool: Spool | None) -> bool:
        """Whether what waits in the spool will be drained soon; "no" as long as nothing was measured."""
        if spool is None or self._since_s is None or not self._drained_bytes:
            return False
        taken_s = self._clock.monotonic_s() - self._since_s
        return spool.waiting_bytes * taken_s <= SOON_S * self._drained_bytes
