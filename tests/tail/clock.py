"""A clock for tests that don't wait."""

from hostagent.clock import Clock


class HandClock(Clock):
    """A clock the test turns; each reading of it takes `per_look_s`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.per_look_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += self.per_look_s
        return self.now_s
