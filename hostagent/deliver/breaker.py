"""Whether an output counts as down: one failed request is a hiccup, failures that last are not.

Owns that judgement only. While the breaker is open the sender keeps probing with the oldest block at the pace of its
back-off, and everything else goes to the spool.
"""

from __future__ import annotations

OPEN_AFTER_S = 2.0
OPEN_AFTER_FAILURES = 5


class Breaker:
    """Used by one sender's thread; `now_s` is monotonic."""

    def __init__(self) -> None:
        self._failing_since_s: float | None = None
        self._failures = 0

    def failed(self, now_s: float) -> None:
        """A request failed for now."""
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        self._failures += 1

    def succeeded(self) -> None:
        """A request was answered: the backend is there, whatever it said."""
        self._failing_since_s = None
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last request failed."""
        return self._failing_since_s is not None

    def opens_in_s(self, now_s: float) -> float | None:
        """Seconds until it is open if nothing succeeds meanwhile, 0 when it is; None while nothing fails."""
        if self._failing_since_s is None:
            return None
        if self._failures >= OPEN_AFTER_FAILURES:
            return 0.0
        return max(0.0, self._failing_since_s + OPEN_AFTER_S - now_s)

    def open(self, now_s: float) -> bool:
        """Whether the output is down."""
        return self.opens_in_s(now_s) == 0.0
