"""What a spool gives up or misses: told to the checkpoint first, and to the operator.

The checkpoint knows which bytes lie at which place of the spool, so what is damaged or gone is named exactly, whatever
is left of the segments: it is read from its log files again, or goes into the ledger. Only where the database is
younger than the spool, a frame's header has to say it, or nobody can.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from hostagent.clock import Clock
from hostagent.hookspecs import Notice
from hostagent.model import Loss
from hostagent.state.database.ledger import LossReason
from hostagent.state.segments.frames import Damage, Frame
from hostagent.state.segments.survey import Segment
from hostagent.state.spool.spooled import SPOOL_DIRECTORY, Place, SpoolHeader, decode_header, losses_of, merge

_NOTICES_KEPT = 20


class SpoolRecord(Protocol):
    """The checkpoint as the spool sees it: it knows what the spool should hold, has it read again, keeps the ledger."""

    def reconcile_spool(self, output: str, held: Iterable[tuple[Place, SpoolHeader]], done: Place) -> Sequence[Place]:
        """At start: have what should be there and is not read again; the places of those blocks."""

    def lose_spooled(self, output: str, where: tuple[Place, Place], reason: LossReason) -> Sequence[Place]:
        """Ledger what is dropped between two places, have what is damaged read again; the places that are known."""

    def add_losses(self, losses: Sequence[Loss]) -> None:
        """Ledger what nobody else knows of."""


class SpoolLosses:
    """Used by one Spool, under its lock."""

    def __init__(self, directory: Path, output: str, clock: Clock, record: SpoolRecord) -> None:
        self._directory = directory
        self._output = output
        self._clock = clock
        self._record = record
        self._missed: list[Place] = []
        self.notices: list[Notice] = []

    def reconcile(
        self,
        held: Iterable[tuple[Place, SpoolHeader]],
        done: Place,
        missing: Iterable[int],
        unreadable: Iterable[Segment],
    ) -> None:
        """At start: ledger what should be there and is not, segments that are gone or unreadable included."""
        self._missed = sorted(self._record.reconcile_spool(self._output, held, done))
        if self._missed:
            self.tell(
                f"{len(self._missed)} spooled blocks are damaged or gone: they are read from their log files again",
                "what is not there any more is in the ledger; look at the disk's health, and who changed the directory",
            )
        named = {place.segment for place in self._missed}
        lost = [
            self._unknown_loss(f"segment {number:012d}", 0, LossReason.SPOOL_MISSING)
            for number in missing
            if number not in named
        ]
        lost += [
            self._unknown_loss(one.path.name, 0, LossReason.SPOOL_DAMAGED)
            for one in unreadable
            if one.number not in named
        ]
        if lost:
            self._record.add_losses(lost)

    def give_up(self, segment: Segment, going: Sequence[Frame | Damage], reason: LossReason) -> None:
        """Ledger frames and damage of a segment that lie next to each other; bytes of damage are always damaged."""
        start, stop = Place(segment.number, _extent(going[0])[0]), Place(segment.number, _extent(going[-1])[1])
        known = sorted({*self._record.lose_spooled(self._output, (start, stop), reason), *self._missed})
        now_ns = self._clock.wall_ns()
        lost = []
        for one in going:
            begin, end = (Place(segment.number, offset) for offset in _extent(one))
            at = bisect_left(known, begin)
            if at < len(known) and known[at] < end:
                continue
            if one.header is not None:
                lost += losses_of(decode_header(one.header), reason, now_ns)
            else:
                lost.append(self._unknown_loss(segment.path.name, begin.offset, LossReason.SPOOL_DAMAGED))
        if lost:
            self._record.add_losses(merge(lost))

    def tell(self, message: str, hint: str) -> None:
        """Something an operator should know."""
        self.notices = [*self.notices[-_NOTICES_KEPT + 1 :], Notice(f"spool {self._output}", message, hint)]

    def _unknown_loss(self, name: str, start: int, reason: LossReason) -> Loss:
        path = f"{SPOOL_DIRECTORY}/{self._directory.name}/{name}"
        return Loss("", path, 0, start, None, reason, self._clock.wall_ns(), self._output)


def _extent(found: Frame | Damage) -> tuple[int, int]:
    return (found.start if isinstance(found, Damage) else found.offset), found.end
