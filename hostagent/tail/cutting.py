"""A block cut a second time from its files, byte for byte, under the id it had.

In the reader's thread, for blocks in flight when the agent stopped and for those that a spool has lost: `recut` says
when. It says what is missing and writes nothing down; an output's cursors move past what lay before them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.model import Block, Loss, Part, Range
from hostagent.state.rows import InflightBlock, InflightPart, Position
from hostagent.tail.feed import recut
from hostagent.tail.files.closed import ClosedFiles
from hostagent.tail.files.identity import ANCHOR_BYTES, anchor_of
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import OpenError
from hostagent.tail.ports import Lane
from hostagent.tail.tailer import Cursor, TailedFile

log = logging.getLogger(__name__)


Look = Callable[[TailedFile, Position], None]
"""Notices that a file was rewritten, and finds its copy: that has what was read of it, up to the position."""


class _GoneError(Exception):
    """A range of a block is not what it was; its text says why."""


class Again(NamedTuple):
    """A block cut again, its row as it is to be from now on, and what is missing from it."""

    block: Block
    row: InflightBlock
    losses: list[Loss]


class Cutter:
    """Cuts from the files that are being read, and from those that were closed."""

    def __init__(self, registry: Registry, closed: ClosedFiles, clock: Clock) -> None:
        self._registry = registry
        self._closed = closed
        self._clock = clock

    def awaits(self, block: InflightBlock) -> bool:
        """Whether there may still be targets to come in which some of its files are."""
        rows = {span.file for part in block.parts for span in part.ranges}
        return any(row not in self._registry.rows.by_id and self._closed.is_awaited(row) for row in rows)

    def finish(self) -> None:
        """No block is to be cut now."""
        self._closed.let_go()

    def cut_again(self, lane: Lane, inflight: InflightBlock, reason: str, look: Look) -> Again:
        """The block without the parts that are gone.

        What those covered behind the output's position is read anew, or was ledgered with its file; before it, it is
        lost. `look` is asked about a file that has not what it had.
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
                part = self._part_again(lane, row, inflight.observed_ns, look)
            except _GoneError as error:
                rows.append(row._replace(ranges=()))
                losses += [
                    Loss(row.source, "", span.file, span.start, span.end, reason, self._clock.wall_ns(), lane.name)
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
        return Again(block, msgspec.structs.replace(inflight, parts=tuple(rows)), losses)

    def _part_again(self, lane: Lane, part: InflightPart, observed_ns: int, look: Look) -> Part:
        """A part as it was, and the output's cursors behind it."""
        pieces = []
        tailed: TailedFile | None = None
        for span in part.ranges:
            tailed = self._registry.rows.by_id.get(span.file) or self._closed.find(span.file)
            if tailed is None:
                raise _GoneError(f"file {span.file} is gone")
            cursor = _cursor_of(tailed, lane)
            if cursor is None or (cursor.offset != span.start and cursor.offset < span.end):
                raise _GoneError(f"{tailed.path} does not stand where the part begins")
            pieces.append(self._bytes_again(tailed, span, look))
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
            if (tailed := self._registry.rows.by_id.get(span.file)) is not None:
                _move(tailed, lane, span)
        return Part(part.ranges, part.chain, part.source, payload, records, raw_bytes=len(data))

    def _bytes_again(self, tailed: TailedFile, span: Range, look: Look) -> bytes:
        data = self._read(tailed, span)
        if data is None:
            # It may have been copied and truncated since it was opened, and nobody has read it since.
            look(tailed, Position(span.end, span.anchor))
            data = self._read(tailed, span)
        if data is None:
            raise _GoneError(f"{tailed.path} has other content")
        return data

    def _read(self, tailed: TailedFile, span: Range) -> bytes | None:
        """A range of a file, None if it is not what it was."""
        try:
            found = tailed if self._registry.files.ensure(tailed) else self._closed.find(span.file)
            if found is None or found.content is None:
                raise _GoneError(f"{tailed.path} leads to another file")
            lead = min(span.start, ANCHOR_BYTES)
            data = found.content.read(span.start - lead, span.end - span.start + lead)
        except (OSError, OpenError) as error:
            raise _GoneError(f"{tailed.path} can't be read: {error}") from error
        holds = len(data) == span.end - span.start + lead and anchor_of(data[-ANCHOR_BYTES:]) == span.anchor
        return data[lead:] if holds else None


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
