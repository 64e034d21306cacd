"""Blocks that are cut a second time from their files: those in flight when the agent stopped, and those a spool lost.

In the reader's thread: once before anything new is read, and whenever the checkpoint has blocks to be reclaimed. A
block is cut again from those of its parts that are still there, byte for byte, and keeps its id: if the backend has
stored it, none of it may come a second time. What is not there any more is written down before the rest is sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.model import Block, Loss, Part, Range
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import InflightBlock, InflightPart
from hostagent.tail.feed import recut
from hostagent.tail.files.identity import ANCHOR_BYTES, anchor_of
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import OpenError
from hostagent.tail.ports import Lane
from hostagent.tail.tailer import Cursor, TailedFile

log = logging.getLogger(__name__)

RETRY_S = 1.0


class _GoneError(Exception):
    """A range of a block is not what it was; its text says why."""


class _Again(NamedTuple):
    """A block cut again, its row as it is to be from now on, and what is missing from it."""

    block: Block
    row: InflightBlock
    losses: list[Loss]


def resume_inflight(
    registry: Registry, checkpoint: Checkpoint, lanes: tuple[Lane, ...], clock: Clock, stop: threading.Event
) -> None:
    """Cut the blocks that were in flight again and queue them, before anything new is read.

    What is no longer claimed must be stored before anything is sent, so this waits for a disk that can't be read or
    written; a stop ends that with nothing queued.
    """
    begun: dict[str, list[InflightBlock]] = {}
    if not _insist(lambda: begun.update({lane.name: checkpoint.inflight(lane.name) for lane in lanes}), clock, stop):
        return
    cut = [
        (lane, _cut_again(registry, lane, inflight, LossReason.SPOOL_MISSING, clock))
        for lane in lanes
        for inflight in begun[lane.name]
    ]
    narrowed = [again for _, again in cut if again.block.indexes is not None]
    losses = [loss for again in narrowed for loss in again.losses]
    rows = [again.row for again in narrowed]
    if narrowed and not _insist(lambda: checkpoint.narrow_inflight(rows, losses), clock, stop):
        return
    for lane, again in cut:
        if again.block.parts:
            lane.offer_resumed(again.block)


def _insist(step: Callable[[], None], clock: Clock, stop: threading.Event) -> bool:
    """Do a step until the disk lets it be done; False when a stop came before."""
    while True:
        try:
            step()
        except StateError as error:
            log.warning("blocks that were in flight wait: %s", error)
            if clock.wait(stop, RETRY_S):
                return False
        else:
            return True


class Reclaiming:
    """Takes back from their files the blocks that spools have lost, as lanes have room for them.

    They are older than what is read next: until they are queued, their lanes get nothing new.
    """

    def __init__(self, registry: Registry, checkpoint: Checkpoint, clock: Clock) -> None:
        self._registry = registry
        self._checkpoint = checkpoint
        self._clock = clock
        self._retry_at_s = 0.0
        self._last_words = False

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

    def take(self, lanes: Sequence[Lane], look: Callable[[TailedFile], None]) -> None:
        """Queue the oldest such block of every lane that has room; what of it is not there any more is ledgered.

        `look` notices a file that was rewritten, and finds its copy: nobody may have read it since.
        """
        if not self._checkpoint.reclaiming or self._clock.monotonic_s() < self._retry_at_s:
            return
        try:
            for lane in lanes:
                if lane.name in self._checkpoint.reclaiming and lane.room():
                    self._take_oldest(lane, look)
        except StateError as error:
            log.warning("blocks that a spool has lost wait: %s", error)
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S

    def _take_oldest(self, lane: Lane, look: Callable[[TailedFile], None]) -> None:
        for reclaim in self._checkpoint.reclaims(lane.name, 1):
            for row in {span.file for part in reclaim.block.parts for span in part.ranges}:
                if (tailed := self._registry.rows.by_id.get(row)) is not None:
                    look(tailed)
            again = _cut_again(self._registry, lane, reclaim.block, reclaim.reason, self._clock)
            self._checkpoint.end_reclaim(reclaim._replace(block=again.row), again.losses)
            if again.block.parts:
                lane.offer_resumed(again.block)


def _cut_again(registry: Registry, lane: Lane, inflight: InflightBlock, reason: str, clock: Clock) -> _Again:
    """The block without the parts that are gone.

    What those covered behind the output's position is read anew, or was ledgered with its file; before it, it is lost.
    """
    parts: list[Part] = []
    rows: list[InflightPart] = []
    indexes: list[int] = []
    losses: list[Loss] = []
    reasons: list[str] = []
    first = 0
    for row in inflight.parts:
        if not row.ranges:  # found missing earlier, or not the spool's to keep
            rows.append(row)
            first += row.records
            continue
        try:
            part = _part_again(registry, lane, row, inflight.observed_ns)
        except _GoneError as error:
            rows.append(row._replace(ranges=()))
            losses += [
                Loss(row.source, "", span.file, span.start, span.end, reason, clock.wall_ns(), lane.name)
                for span in row.ranges
            ]
            reasons.append(str(error))
        else:
            parts.append(part)
            rows.append(row)
            indexes += range(first, first + part.records)
        first += row.records
    if reasons:
        message = "output %s: %d of %d parts of block %s can't be cut again, the first because %s"
        log.warning(message, lane.name, len(reasons), len(inflight.parts), inflight.id, reasons[0])
    kept = None if len(parts) == len(inflight.parts) else tuple(indexes)
    block = Block(inflight.id, inflight.output, inflight.observed_ns, tuple(parts), kept)
    return _Again(block, msgspec.structs.replace(inflight, parts=tuple(rows)), losses)


def _part_again(registry: Registry, lane: Lane, part: InflightPart, observed_ns: int) -> Part:
    """A part as it was, and the output's cursors behind it."""
    pieces = []
    tailed: TailedFile | None = None
    for span in part.ranges:
        tailed = registry.rows.by_id.get(span.file)
        if tailed is None:
            raise _GoneError(f"file {span.file} is gone")
        cursor = _cursor_of(tailed, lane)
        if cursor is None or (cursor.offset != span.start and cursor.offset < span.end):
            raise _GoneError(f"{tailed.path} does not stand where the part begins")
        pieces.append(_bytes_again(registry, tailed, span))
    if tailed is None:
        raise _GoneError("it has no ranges")
    # Where a record runs across a rotation, the part is the newer file's.
    constants = tailed.record_constants()
    if tailed.signature != part.chain:
        raise _GoneError(f"the configuration of source {part.source} or the tags of {tailed.path} have changed")
    data = b"".join(pieces)
    try:
        payload, records = recut(tailed.origin.chain, lane, constants, data, observed_ns)
    except Exception as error:
        # A plugin has come to fail on them. The file is told of when it is read; the agent must start all the same.
        raise _GoneError(f"{type(error).__name__} while processing {tailed.path}: {error}") from error
    for span in part.ranges:
        _move(registry.rows.by_id[span.file], lane, span)
    return Part(part.ranges, part.chain, part.source, payload, records, raw_bytes=len(data))


def _bytes_again(registry: Registry, tailed: TailedFile, span: Range) -> bytes:
    try:
        if not registry.files.ensure(tailed):
            raise _GoneError(f"{tailed.path} leads to another file")
        assert tailed.content is not None
        lead = min(span.start, ANCHOR_BYTES)
        data = tailed.content.read(span.start - lead, span.end - span.start + lead)
    except (OSError, OpenError) as error:
        raise _GoneError(f"{tailed.path} can't be read: {error}") from error
    if len(data) != span.end - span.start + lead or anchor_of(data[-ANCHOR_BYTES:]) != span.anchor:
        raise _GoneError(f"{tailed.path} has other content")
    return data[lead:]


def _cursor_of(tailed: TailedFile, lane: Lane) -> Cursor | None:
    return next((cursor for cursor in tailed.cursors if lane in cursor.lanes), None)


def _move(tailed: TailedFile, lane: Lane, span: Range) -> None:
    cursor = _cursor_of(tailed, lane)
    assert cursor is not None
    if span.end <= cursor.offset:
        return  # it was in a spool once, and the output has gone on from there
    if len(cursor.lanes) > 1:
        cursor = tailed.split(cursor, (lane,))
    cursor.offset, cursor.anchor = span.end, span.anchor
    tailed.merge()
