"""What a spool gives up or misses: told to the checkpoint first, and to the operator.

The checkpoint knows which bytes lie at which place of the spool, so what is damaged or gone is named exactly, whatever
is left of the segments: it is read from its log files again, or goes into the ledger. Only where the database is
younger than the spool, a frame's header has to say it, or nobody can.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import Loss
from hostagent.state.database.kinship import Kinship
from hostagent.state.database.ledger import LossReason
from hostagent.state.segments.frames import Damage, Frame
from hostagent.state.segments.log import SegmentLog
from hostagent.state.segments.marks import RUN_BYTES
from hostagent.state.segments.survey import Segment
from hostagent.state.spool.spooled import BLOCK_FRAME, SPOOL_DIRECTORY, Place, SpoolHeader, decode_header

_NOTICES_KEPT = 20


class SpoolRecord(Protocol):
    """The checkpoint as the spool sees it: it knows what the spool should hold, has it read again, keeps the ledger."""

    def kinship(self, output: str, runs: Sequence[str], known: Place) -> Kinship:
        """Whether a directory that has lived through these runs, and knows of places up to there, is the known one."""

    def reconcile_spool(
        self,
        output: str,
        held: Iterable[tuple[Place, SpoolHeader]],
        drained: tuple[Place, Place],
        kin: Kinship = Kinship.SAME,
        run: str = "",
    ) -> Sequence[Place]:
        """At start: have what should be there and is not read again; the places of those blocks."""

    def lose_spooled(self, output: str, where: tuple[Place, Place], reason: LossReason) -> Sequence[Place]:
        """Ledger what is dropped between two places, have what is damaged read again; the places that are known."""

    def note_drained(self, output: str, head: Place) -> None:
        """Everything before the head is done, and the files it lay in are about to go."""

    def listed_up_to(self, output: str) -> Mapping[int, int]:
        """By segment: before which offset it has known every block."""

    def note_listed(self, output: str, ends: Mapping[int, int]) -> None:
        """All blocks before these places in their segments are known now."""

    def lose_unlisted(self, output: str, headers: Sequence[SpoolHeader], reason: LossReason) -> None:
        """Ledger what nobody else knows of, by what the frames' headers say."""

    def add_losses(self, losses: Sequence[Loss]) -> None:
        """Ledger what not even a header tells of."""


class SpoolLosses:
    """Used by one Spool, under its lock."""

    def __init__(self, directory: Path, output: str, clock: Clock, record: SpoolRecord) -> None:
        self._directory = directory
        self._output = output
        self._clock = clock
        self._record = record
        self._without: list[str] = []
        self._missed: list[Place] = []
        self._gone_untold: list[tuple[Place, Place]] = []
        self.highest = 0
        """The last segment of which the record has ever heard."""
        self.notices: list[Notice] = []

    def reconcile(self, log: SegmentLog, found: Iterable[tuple[Segment, Frame | Damage]]) -> Place:
        """At start: ledger what should be there and is not, segments that are gone or unreadable included.

        `found` is what waits in the directory. Returns the place before which something is lacking.
        """
        kin = self._record.kinship(self._output, log.runs, Place(*log.known))
        if kin is Kinship.FOREIGN:
            self.tell(
                f"{self._directory} and the database are of different age, or it is another agent's: what the database "
                "has in it and is not there is read from the log files again, what is there is delivered",
                "put back copies of the whole data directory only; some lines come twice, some may be in the ledger "
                "that were delivered",
            )
        # The directory first: a database that knows a run is then no stranger to it, wherever we are killed.
        before = log.runs if kin is Kinship.SAME else [] if log.segments else self._without
        log.begin_run(run := os.urandom(RUN_BYTES).hex(), before)
        drained = (Place(*log.given_up), Place(*log.done))
        damaged: list[tuple[Segment, Damage]] = []
        held = _blocks(found, damaged)
        given_up = self._note_missed(
            self._record.reconcile_spool(self._output, held, drained, kin, run), log.missing, log.unreadable
        )
        # Later nobody can tell any more which of these had been listed.
        for segment, damage in damaged:
            self.give_up(segment, [damage], LossReason.SPOOL_DAMAGED)
        self._record.note_listed(self._output, {segment.number: segment.size for segment in log.segments})
        return given_up

    def nothing_there(self) -> Place:
        """The same where there is no directory. A database of this run will know the one that is made in it."""
        run = os.urandom(RUN_BYTES).hex()
        nowhere = (Place(0, 0), Place(0, 0))
        missed = self._record.reconcile_spool(self._output, (), nowhere, Kinship.IN_DOUBT, run)
        self._without = [run]
        return self._note_missed(missed, {}, ())

    def _note_missed(self, missed: Sequence[Place], missing: Mapping[int, int], unreadable: Sequence[Segment]) -> Place:
        """`missing` are numbers of segments and how long they were, 0 where that isn't known."""
        listed = self._record.listed_up_to(self._output)
        self.highest = max(listed, default=0)
        self._missed = sorted(missed)
        if self._missed:
            self.tell(
                f"{len(self._missed)} spooled blocks are damaged or gone: they are read from their log files again",
                "what is not there any more is in the ledger; look at the disk's health, and who changed the directory",
            )
        named = {place.segment for place in self._missed}
        lost = [
            self._unknown_loss(f"segment {number:012d}", 0, LossReason.SPOOL_MISSING)
            for number, size in missing.items()
            if number not in named and not _all_listed(listed, number, size)
        ]
        lost += [
            self._unknown_loss(one.path.name, 0, LossReason.SPOOL_DAMAGED)
            for one in unreadable
            if one.number not in named and not _all_listed(listed, one.number, one.size)
        ]
        if lost:
            self._record.add_losses(lost)
        blocks = [Place(place.segment, place.offset + 1) for place in self._missed]
        whole = [Place(number + 1, 0) for number in [*missing, *(one.number for one in unreadable)]]
        return max([Place(0, 0), *blocks, *whole])

    def give_up(
        self, segment: Segment, going: Sequence[Frame | Damage], reason: LossReason, *, fresh: bool = False
    ) -> None:
        """Ledger frames and damage of a segment that lie next to each other; bytes of damage are always damaged.

        What is damaged before it was listed, in a segment that is `fresh`, begun in this run, is committed as gone.
        """
        start, stop = Place(segment.number, _extent(going[0])[0]), Place(segment.number, _extent(going[-1])[1])
        known = sorted({*self._record.lose_spooled(self._output, (start, stop), reason), *self._missed})
        listed = self._record.listed_up_to(self._output)
        unlisted, lost = [], []
        for one in going:
            begin, end = (Place(segment.number, offset) for offset in _extent(one))
            if _all_listed(listed, segment.number, end.offset):
                continue
            untold = fresh and (reason is not LossReason.SPOOL_DROPPED or isinstance(one, Damage))
            if untold:  # all of it, or what follows those that are known
                self._gone_untold.append((begin, end))
            at = bisect_left(known, begin)
            if untold or (at < len(known) and known[at] < end):
                continue
            if one.header is not None:
                unlisted.append(decode_header(one.header))
            else:
                lost.append(self._unknown_loss(segment.path.name, begin.offset, LossReason.SPOOL_DAMAGED))
        if unlisted:
            self._record.lose_unlisted(self._output, unlisted, reason)
        if lost:
            self._record.add_losses(lost)

    def drained(self, head: tuple[int, int]) -> None:
        """Segments before the head are about to be removed: if the mark is lost, too, nobody could tell that they were
        delivered. Not worth keeping them on a disk that may be full.
        """
        with contextlib.suppress(StateError):
            self._record.note_drained(self._output, Place(*head))

    def gave_up(self, place: Place) -> bool:
        """Whether the block there was given up before the record was told of it."""
        return any(begin <= place < end for begin, end in self._gone_untold)

    def tell(self, message: str, hint: str) -> None:
        """Something an operator should know."""
        self.notices = [*self.notices[-_NOTICES_KEPT + 1 :], Notice(f"spool {self._output}", message, hint)]

    def _unknown_loss(self, name: str, start: int, reason: LossReason) -> Loss:
        path = f"{SPOOL_DIRECTORY}/{self._directory.name}/{name}"
        return Loss("", path, 0, start, None, reason, self._clock.wall_ns(), self._output)


def _all_listed(listed: Mapping[int, int], number: int, end: int) -> bool:
    """Whether the record has known every block of a segment up to there: one that is no news to it is no loss.

    What lies before a later segment was all known to it when that one was.
    """
    return number in listed and (0 < end <= listed[number] or number < max(listed))


def _blocks(
    found: Iterable[tuple[Segment, Frame | Damage]], damaged: list[tuple[Segment, Damage]]
) -> Iterator[tuple[Place, SpoolHeader]]:
    for segment, one in found:
        if isinstance(one, Damage):
            damaged.append((segment, one))
        elif one.kind == BLOCK_FRAME:
            yield Place(segment.number, one.offset), decode_header(one.header)


def _extent(found: Frame | Damage) -> tuple[int, int]:
    return (found.start if isinstance(found, Damage) else found.offset), found.end
