"""A record that begins in one file and ends in the next: the new file waits for the old one, and both give one part.

Container runtimes write long lines in parts, and rotate between them. Who follows whom is noted by the registry, when
an old file is over is decided by `ending`. The reader's thread alone.
"""

from __future__ import annotations

from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.model import Range
from hostagent.tail.feed import Feed
from hostagent.tail.files.registry import Registry
from hostagent.tail.tailer import Cursor, Fetched, RewrittenError, TailedFile

EXTRA_S = 0.5
"""How much longer than an old file's grace the new one waits: its end is looked for once more in this time."""


class End(NamedTuple):
    """One side of a rotation: a file, where its cursor stands, and the bytes there."""

    tailed: TailedFile
    cursor: Cursor
    fetched: Fetched


class Joins:
    """Joins the end of a file with the beginning of its successor."""

    def __init__(self, registry: Registry, feed: Feed, clock: Clock) -> None:
        self._registry = registry
        self._feed = feed
        self._clock = clock

    def holds_back(self, tailed: TailedFile) -> bool:
        """Whether a new file must wait, because a record may run into it from the file whose place it took."""
        before = tailed.predecessor
        if before is None:
            return False
        since_s = before.ended_at_s if before.ended_at_s is not None else self._registry.followed.get(before)
        over = before.closed or before.drained or before.suspended or since_s is None or tailed.head > 0
        if not over and since_s is not None:
            # Somebody may hold the old file open for good, and the new one must not wait for that.
            over = self._clock.monotonic_s() - since_s >= before.origin.policy.close_grace_s + EXTRA_S
        if over:
            tailed.predecessor = None
        return not over

    def join(self, old: TailedFile, new: TailedFile) -> bool:
        """Deliver the end of a drained file together with the beginning of its successor; whether nothing is left."""
        if new.suspended or not self._registry.ensure_open(new) or old.content is None:
            return True
        try:
            return self._join_open(old, new)
        except (RewrittenError, OSError):
            return True  # each file's own turn meets it again and knows what to do
        except Exception as error:  # noqa: BLE001 - the chain runs plugins' code, as in a turn
            self._registry.refused.suspend(old, error)
            return False

    def _join_open(self, old: TailedFile, new: TailedFile) -> bool:
        size = self._feed.chunk_bytes + old.origin.chain.reach_bytes
        for cursor in list(old.cursors):
            rest = old.fetch(cursor, size)
            if not rest.data:
                continue
            if len(rest.data) == size:
                return False  # more than a record that has not ended: there was no room to read it
            if old.origin.chain.whole_lines(rest.data) < len(rest.data):
                return True  # its writer died in the middle of a line: whoever came after it began another one
            start = next((other for other in new.cursors if other.offset == 0), None)
            if start is None or not set(cursor.lanes) <= set(start.lanes):
                return True
            if not all(lane.room() for lane in cursor.lanes):
                return False
            if set(cursor.lanes) != set(start.lanes):
                start = new.split(start, cursor.lanes)
            head = new.fetch(start, size)
            if not head.data or not self._deliver_joined(End(old, cursor, rest), End(new, start, head)):
                return False
        return True

    def _deliver_joined(self, end: End, beginning: End) -> bool:
        """One part over both files, if the record that was open at the end of the old one ends in the new one."""
        old, cursor, rest = end
        new, start, head = beginning
        processed = old.origin.chain.process(rest.data + head.data, new.record_constants(), final=False)
        taken = processed.consumed - len(rest.data)
        if taken < 0:
            return False
        old_start, old_anchor, new_anchor = cursor.offset, cursor.anchor, start.anchor
        old.advance(cursor, rest, len(rest.data))
        new.advance(start, head, taken)
        ranges = (
            Range(old.row, old_start, cursor.offset, cursor.anchor),
            Range(new.row, 0, start.offset, start.anchor),
        )
        try:
            self._feed.deliver(new, cursor.lanes, ranges, processed)
        except BaseException:
            cursor.offset, cursor.anchor = old_start, old_anchor
            start.offset, start.anchor = 0, new_anchor
            raise
        return True
