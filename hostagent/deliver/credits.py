"""How much may be in flight: one pool of byte credits over all outputs, asked before the reader adds a part.

Owns the accounting only. A lane always keeps a guaranteed share for itself, so an output that is stuck can hold what
is shared, but never what another output needs to go on.
"""

from __future__ import annotations

import threading


class Credits:
    """Half of the pool is guaranteed to the lanes in equal shares, the other half goes to whoever asks first."""

    def __init__(self, total_bytes: int, lanes: int) -> None:
        self._lanes = lanes
        self.guaranteed_bytes = total_bytes // (2 * max(lanes, 1))
        self._shared_bytes = total_bytes - self.guaranteed_bytes * lanes
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}
        self._shared_used = 0
        self._starved = False

    def room(self, lane: str) -> bool:
        """Whether this lane may take more. A "no" is remembered: the next `give` says that somebody waits."""
        with self._lock:
            if self._used.get(lane, 0) < self.guaranteed_bytes or self._shared_used < self._shared_bytes:
                return True
            self._starved = True
            return False

    def take(self, lane: str, size_bytes: int) -> None:
        """Account for bytes that now are in flight; may overdraw by the one part that `room` let in."""
        self._move(lane, size_bytes)

    def give(self, lane: str, size_bytes: int) -> bool:
        """Return bytes; True when some lane had been told "no" since the last time."""
        self._move(lane, -size_bytes)
        with self._lock:
            starved, self._starved = self._starved, False
        return starved

    def forget(self, lane: str) -> None:
        """A lane has ended: what it had in memory is gone, and is read anew. Call `share` afterwards."""
        with self._lock:
            self._used.pop(lane, None)

    def share(self, lanes: int) -> None:
        """Cut the pool for another number of lanes."""
        with self._lock:
            total_bytes = self._shared_bytes + self.guaranteed_bytes * self._lanes
            self._lanes = lanes
            self.guaranteed_bytes = total_bytes // (2 * max(lanes, 1))
            self._shared_bytes = total_bytes - self.guaranteed_bytes * lanes
            self._shared_used = sum(max(0, used - self.guaranteed_bytes) for used in self._used.values())

    def used_bytes(self) -> int:
        """Bytes in flight over all lanes."""
        with self._lock:
            return sum(self._used.values())

    def _move(self, lane: str, size_bytes: int) -> None:
        with self._lock:
            before = self._used.get(lane, 0)
            after = before + size_bytes
            self._used[lane] = after
            self._shared_used += max(0, after - self.guaranteed_bytes) - max(0, before - self.guaranteed_bytes)
