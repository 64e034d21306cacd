"""Blocks that are cut a second time from their files: those in flight when the agent stopped, and those a spool lost.

In the reader's thread: once before anything new is read, and whenever the checkpoint has blocks to be reclaimed. A
block is cut again from those of its parts that are still there, byte for byte, and keeps its id: if the backend has
stored it, none of it may come a second time. What is not there any more is written down before the rest is sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.ledger import LossReason
from hostagent.tail.cutting import Again, Cutter, Look
from hostagent.tail.ports import Lane

log = logging.getLogger(__name__)

RETRY_S = 1.0
PATIENCE_S = 60.0
"""How long after its start the agent waits for targets that have not been published yet, because a container's runtime
does not answer, before what can't be found in their files is lost."""


class Reclaiming:
    """Takes blocks back from their files: at start those in flight, and as lanes have room those that spools lost.

    Both are older than what is read next: until they are queued, their lanes get nothing new.
    """

    def __init__(
        self, cutter: Cutter, checkpoint: Checkpoint, clock: Clock, all_listed: Callable[[], bool] = lambda: True
    ) -> None:
        """`all_listed` says whether every source has published the targets that were there when the agent started."""
        self._cutter = cutter
        self._all_listed = all_listed
        self._checkpoint = checkpoint
        self._clock = clock
        self._retry_at_s = 0.0
        self._patient_until_s = clock.monotonic_s() + PATIENCE_S
        self._last_words = False

    def resume(self, lanes: Sequence[Lane], look: Look, stop: threading.Event) -> None:
        """Cut the blocks that were in flight again and queue them, before anything new is read.

        What is no longer claimed must be stored before anything is sent, so this waits for a disk that can't be read
        or written; a stop ends that with nothing queued.
        """
        cut: list[tuple[Lane, Again]] = []

        def cut_all() -> None:
            cut[:] = [
                (lane, self._cutter.cut_again(lane, inflight, LossReason.SPOOL_MISSING, look))
                for lane in lanes
                for inflight in self._checkpoint.inflight(lane.name)
            ]

        if not self._insist(cut_all, stop):
            return
        narrowed = [again for _, again in cut if again.block.indexes is not None]
        losses = [loss for again in narrowed for loss in again.losses]
        rows = [again.row for again in narrowed]
        if narrowed and not self._insist(lambda: self._checkpoint.narrow_inflight(rows, losses), stop):
            return
        for lane, again in cut:
            if again.block.parts:
                lane.offer_resumed(again.block)

    def _insist(self, step: Callable[[], None], stop: threading.Event) -> bool:
        """Do a step until the disk lets it be done; False when a stop came before."""
        while True:
            try:
                step()
            except StateError as error:
                log.warning("blocks that were in flight wait: %s", error)
                if self._clock.wait(stop, RETRY_S):
                    return False
            else:
                return True

    def room(self, lane: Lane) -> bool:
        """Whether a lane may have something new."""
        return (self._last_words or lane.name not in self._checkpoint.reclaiming) and lane.room()

    def let_all_in(self) -> None:
        """The agent stops, and what is read now can't be read later: order counts less."""
        self._last_words = True

    def pending(self, lanes: Sequence[Lane]) -> bool:
        """Whether there is anything to take back for one of these lanes."""
        return any(lane.name in self._checkpoint.reclaiming for lane in lanes)

    def due_s(self, lanes: Sequence[Lane], now_s: float) -> float:
        """Seconds until `take` has something to do; a lane without room wakes the reader when it has some."""
        if any(lane.name in self._checkpoint.reclaiming and lane.room() for lane in lanes):
            return self._retry_at_s - now_s
        return float("inf")

    def take(self, lanes: Sequence[Lane], look: Look) -> None:
        """Queue the oldest such block of every lane that has room; what of it is not there any more is ledgered."""
        if not self._checkpoint.reclaiming or self._clock.monotonic_s() < self._retry_at_s:
            return
        try:
            for lane in lanes:
                if lane.name in self._checkpoint.reclaiming and lane.room():
                    self._take_oldest(lane, look)
        except StateError as error:
            log.warning("blocks that a spool has lost wait: %s", error)
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S

    def _take_oldest(self, lane: Lane, look: Look) -> None:
        for reclaim in self._checkpoint.reclaims(lane.name, 1):
            if self._is_early() and self._cutter.awaits(reclaim.block):
                self._retry_at_s = self._clock.monotonic_s() + RETRY_S
                return
            again = self._cutter.cut_again(lane, reclaim.block, reclaim.reason, look)
            self._checkpoint.end_reclaim(reclaim._replace(block=again.row), again.losses)
            if again.block.parts:
                lane.offer_resumed(again.block)
        if not self._checkpoint.reclaiming:
            self._cutter.finish()

    def _is_early(self) -> bool:
        """Whether a file may only seem to be gone, since nobody has said yet that it is to be read."""
        return not (self._last_words or self._all_listed()) and self._clock.monotonic_s() < self._patient_until_s
