"""The numbers of one spool: what waits in it, and what came and went since it was opened.

The spool tells of each step and shows the sums in `status` and the metrics, where they must balance at any moment:
what waited at first + spooled - drained - dropped = what waits. It counts what it is told and reads nothing; its owner
has the lock.
"""

from __future__ import annotations

from typing import NamedTuple

from hostagent.state.spool.spooled import weigh


class Amount(NamedTuple):
    """So much of what is spooled; `raw_bytes` are bytes of log files."""

    blocks: int = 0
    records: int = 0
    raw_bytes: int = 0

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(*(one + two for one, two in zip(self, other, strict=True)))

    def minus(self, other: Amount) -> Amount:
        """What is left without the other."""
        return Amount(*(one - two for one, two in zip(self, other, strict=True)))


class SpoolStats(NamedTuple):
    """What waits durably. `disk_bytes` counts whole segment files, delivered blocks at their beginning included.

    The last three are sums since the spool was opened.
    """

    disk_bytes: int = 0
    blocks: int = 0
    records: int = 0
    raw_bytes: int = 0
    oldest_ns: int | None = None
    spooled: Amount = Amount()
    drained: Amount = Amount()
    dropped: Amount = Amount()


class Tally:
    """Counts blocks, records and bytes of log together."""

    def __init__(self) -> None:
        self.waiting = Amount()
        self._unsynced = Amount()
        self._spooled = Amount()
        self._drained = Amount()
        self._dropped = Amount()

    @property
    def empty(self) -> bool:
        """Whether nothing waits, not even to be made durable."""
        return not self.waiting.blocks and not self._unsynced.blocks

    @property
    def all_synced(self) -> bool:
        """Whether all that was written is durable."""
        return not self._unsynced.blocks

    def found(self, records: int, raw_bytes: int) -> None:
        """A block of an earlier run waits."""
        self.waiting = self.waiting.plus(Amount(1, records, raw_bytes))

    def appended(self, records: int, raw_bytes: int) -> None:
        """A block was written and is not durable yet."""
        self._unsynced = self._unsynced.plus(Amount(1, records, raw_bytes))

    def synced(self) -> None:
        """What was written is durable: from now on it waits."""
        self.waiting = self.waiting.plus(self._unsynced)
        self._spooled = self._spooled.plus(self._unsynced)
        self._unsynced = Amount()

    def sync_failed(self) -> None:
        """What was written is not there."""
        self._unsynced = Amount()

    def drained(self, records: int, raw_bytes: int) -> None:
        """A block was delivered, or is among the dead letters."""
        amount = Amount(1, records, raw_bytes)
        self.waiting = self.waiting.minus(amount)
        self._drained = self._drained.plus(amount)

    def dropped(self, header: bytes) -> None:
        """A block is given up: it made room, or is damaged."""
        self._drop(_weight(header))

    def nothing_left(self) -> None:
        """All was looked at: what still counts as waiting had headers that can't be read any more."""
        self._drop(self.waiting)

    def stats(self, disk_bytes: int, oldest_ns: int | None) -> SpoolStats:
        """All of it."""
        return SpoolStats(disk_bytes, *self.waiting, oldest_ns, self._spooled, self._drained, self._dropped)

    def _drop(self, amount: Amount) -> None:
        self.waiting = self.waiting.minus(amount)
        self._dropped = self._dropped.plus(amount)


def _weight(header: bytes) -> Amount:
    weight = weigh(header)
    return Amount(1, weight.records, weight.raw_bytes)
