"""What an output tells about itself: a state in one word, why, since when, and counters that balance.

Owns the numbers of one lane. Each counter is written by one thread and read by any; nothing here acts on them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hostagent.clock import Clock
from hostagent.state.spool.tally import SpoolStats

# Between two times of being well, no more different errors than this are logged; `status` always shows the last one.
_MOST_TOLD = 20

State = Literal["ok", "retrying", "spooling", "stopped"]


class Counters(msgspec.Struct, kw_only=True):
    """What one lane has done since start; the sender's thread writes, except for `*_cut`, the reader's.

    A block counts in `blocks` when it is delivered, by way of the spool or not; `spooled` counts those put into it.
    What was dead-lettered counts in `dead_letters` and not in `records` and `raw_bytes`.
    """

    blocks_cut: int = 0
    records_cut: int = 0
    raw_bytes_cut: int = 0
    encoded_bytes_cut: int = 0
    blocks: int = 0
    records: int = 0
    raw_bytes: int = 0
    compressed_bytes: int = 0
    requests: int = 0
    spooled: int = 0
    retries: int = 0
    splits: int = 0
    dead_letters: int = 0
    crashes: int = 0


class LaneStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A lane as `status` and the metrics show it. `last_error` survives recovery, `since_ns` is the state's begin."""

    name: str
    state: State
    since_ns: int
    last_error: str
    last_error_ns: int | None
    queued_blocks: int
    unacked_blocks: int
    unsent_bytes: int
    spool: SpoolStats
    spool_fault: str
    spool_usable: bool
    counters: Counters


class Condition:
    """The state of one sender and the error behind it; written by its thread, read by others as whole values."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state: tuple[State, int] = ("ok", clock.wall_ns())
        self._error: tuple[str, int | None] = ("", None)
        self._told: set[str] = set()

    @property
    def state(self) -> tuple[State, int]:
        """The state, and the wall time it began."""
        return self._state

    @property
    def error(self) -> tuple[str, int | None]:
        """The last error, and when it was seen; empty when there never was one."""
        return self._error

    def enter(self, state: State) -> bool:
        """Change to a state; True when it is another one than before."""
        if self._state[0] == state:
            return False
        self._state = (state, self._clock.wall_ns())
        if state == "ok":
            self._told.clear()
        return True

    def failed(self, message: str, state: State = "retrying") -> bool:
        """Note an error and enter the state it causes; True when it is worth a line in the log."""
        self._error = (message, self._clock.wall_ns())
        self.enter(state)
        if message in self._told or len(self._told) >= _MOST_TOLD:
            return False
        self._told.add(message)
        return True
