"""Time, for everybody: the only module that reads a clock, sleeps or draws a random delay.

A Clock is handed to whoever needs one, so a test can hand in a clock it turns by hand. Waiting always ends early when
the given event is set: nothing in the agent sleeps through a stop.
"""

from __future__ import annotations

import random
import threading
import time


class Clock:
    """The system's clocks."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; may step when the machine's clock is set."""
        return time.time_ns()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        """Wait for the event, at most `timeout_s` seconds; True when it is set."""
        return event.wait(timeout_s)


class Backoff:
    """Delays that double from `first_s` to `longest_s`, each drawn between half and the whole of its step.

    The jitter keeps a fleet whose backend came back from asking it all in the same second.
    """

    def __init__(self, first_s: float = 0.5, longest_s: float = 30.0, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._step_s = first_s

    def next_s(self, wish_s: float | None = None) -> float:
        """Seconds to wait before the next try; never less than the backend's own wish."""
        delay_s = self._step_s * (0.5 + self._rng.random() / 2)
        self._step_s = min(self._step_s * 2, self._longest_s)
        return max(delay_s, wish_s or 0.0)

    def reset(self) -> None:
        """Start again from the first delay, after a success."""
        self._step_s = self._first_s
