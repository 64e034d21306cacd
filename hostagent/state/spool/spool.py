"""The spool of one output: blocks on disk while its backend is down or slow, drained in the order they came.

Between a sender and its backend: append, sync, then commit the positions; later head, deliver, advance. Owns a
directory of segments and the mark how far it was drained. It never delivers, never decides when to spool, and gives up
bytes only after the checkpoint has them in its ledger, or among those to be reclaimed. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from hostagent.clock import Clock
from hostagent.config.model import SpoolConfig
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import Block, Delivery
from hostagent.state.database.ledger import LossReason
from hostagent.state.faults import os_fault
from hostagent.state.quarantine import Quarantine
from hostagent.state.segments.frames import PREFIX_BYTES, Damage, Frame, too_large
from hostagent.state.segments.log import SegmentLog
from hostagent.state.segments.survey import Segment, scan_segment
from hostagent.state.spool.losses import SpoolLosses, SpoolRecord
from hostagent.state.spool.room import Room
from hostagent.state.spool.spooled import (
    BLOCK_FRAME,
    SPOOL_DIRECTORY,
    Place,
    SpooledBlock,
    SpoolHeader,
    decode_block,
    decode_header,
    directory_name,
    encode_block,
    weigh,
)
from hostagent.state.spool.tally import SpoolStats, Tally

__all__ = ["Spool", "SpoolHeader", "SpoolStats", "SpooledBlock"]

_READ_TRIES = 3


class Spool:
    """Blocks of one output, oldest first. Whatever touches the disk may raise StateError: call it again later."""

    @classmethod
    def open(cls, data_dir: Path, output: str, config: SpoolConfig, clock: Clock, record: SpoolRecord) -> Spool:
        """The spool of an output, with what an earlier run left in it.

        `record` is told before bytes are given up; when it raises, nothing is given up.
        """
        return cls(data_dir, output, config, clock, record)

    def __init__(self, data_dir: Path, output: str, config: SpoolConfig, clock: Clock, record: SpoolRecord) -> None:
        """Use `open`."""
        self.directory = data_dir / SPOOL_DIRECTORY / directory_name(output)
        self._output = output
        self._config = config
        self._clock = clock
        self._room = Room(self.directory, config)
        self._losses = SpoolLosses(self.directory, output, clock, record)
        self._quarantine = Quarantine(data_dir, clock)
        self._lock = threading.Lock()
        self._log: SegmentLog | None = None
        self._full = ""
        self._given_up = Place(0, 0)
        self._head: tuple[SpooledBlock, tuple[int, int]] | None = None
        self._failed_reads = 0
        self._tally = Tally()
        if self.directory.exists():  # a healthy output has none, and pays nothing for it
            self._log = self._open_log(Place(0, 0))
        else:
            self._given_up = self._losses.nothing_there()

    def append(self, block: Block, delivery: Delivery) -> Place | None:
        """Write a block behind all others; None if there is no room, or none before sync(). Safe only after sync()."""
        header = encode_block(block, delivery, self._clock.wall_ns())
        with self._lock:
            if why := too_large(header, delivery.body):
                self._full = why
                return None
            need_bytes = PREFIX_BYTES + len(header) + len(delivery.body)
            if self._log is not None and self._tally.all_synced and not self.directory.exists():
                self._log = self._begin_anew(self._log)
            if self._must_sync_first(need_bytes) or not self._has_room(need_bytes):
                return None
            if self._log is None:
                self._log = self._open_log(self._given_up)
            place = self._log.append(BLOCK_FRAME, header, delivery.body)
            self._tally.appended(delivery.records, block.raw_bytes)
        return Place(*place)

    def sync(self) -> None:
        """Make all appended blocks durable: now their positions may be committed.

        When it raises, every block appended since the last sync() is not in the spool: append it again.
        """
        with self._lock:
            if self._log is None:
                return
            try:
                self._log.sync()
            except StateError:
                self._tally.sync_failed()
                raise
            self._tally.synced()

    def head(self) -> SpooledBlock | None:
        """The oldest block, the same one until advance(); None when nothing durable waits. Damage is skipped."""
        with self._lock:
            if self._head is None and self._log is not None:
                try:
                    self._head = self._next(self._log)
                except OSError as error:
                    self._failed_reads += 1
                    if self._failed_reads == _READ_TRIES:
                        self._failed_reads = 0
                        self._skip_unreadable(self._log, f"the disk can't read it: {error.strerror}")
                    raise os_fault(self.directory, "read the spool", error) from error
                self._failed_reads = 0
            return self._head[0] if self._head is not None else None

    def advance(self) -> None:
        """The block that head() gave is delivered, or among the dead letters: go on behind it."""
        with self._lock:
            assert self._head is not None
            assert self._log is not None
            block, place = self._head
            self._head = None
            self._tally.drained(block.header.records, block.header.raw_bytes)
            self._log.move_head(place)
            self._tidy(self._log)

    @property
    def place(self) -> Place | None:
        """Where the head is: all before it is done. None while there is no spool on the disk."""
        log = self._log
        return Place(*log.head) if log is not None else None

    @property
    def end(self) -> Place:
        """Behind the last durable block."""
        log = self._log
        return Place(*log.synced) if log is not None else Place(0, 0)

    def holds(self, place: Place) -> bool:
        """Whether the block that was appended there has neither been delivered nor dropped."""
        with self._lock:
            log = self._log
            return log is not None and place >= log.head and any(one.number == place.segment for one in log.segments)

    def gave_up(self, place: Place) -> bool:
        """Whether the block that was appended there was damaged or dropped before the checkpoint had it listed."""
        with self._lock:
            return self._losses.gave_up(place)

    def contents(self) -> Iterator[SpoolHeader]:
        """The header of every durable block, oldest first."""
        log = self._log
        if log is None:
            return
        try:
            yield from (decode_header(found.header) for _, found in log.frames(log.head) if _is_block(found))
        except OSError as error:
            raise os_fault(self.directory, "read the spool", error) from error

    def stats(self) -> SpoolStats:
        """What is waiting now."""
        with self._lock:
            log = self._log
            if log is None:
                return SpoolStats()
            try:
                oldest_ns = self._oldest_ns(log)
            except OSError:  # head() says why
                oldest_ns = None
            return self._tally.stats(log.disk_bytes, oldest_ns)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of log in the blocks that wait, without asking the disk for anything."""
        return self._tally.waiting.raw_bytes

    @property
    def full(self) -> str:
        """Why the last append() found no room; empty when it did."""
        return self._full

    def notices(self) -> list[Notice]:
        """What an operator should know."""
        hint = "reading waits, the log files are the buffer: free some disk or change that option"
        now = [Notice(f"spool {self._output}", f"it is full: {self._full}", hint)] if self._full else []
        return [*self._losses.notices, *now]

    def close(self) -> None:
        """Make everything durable and let another process have the directory."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _open_log(self, given_up: Place) -> SegmentLog:
        """The directory as it is now, which is new if it was not there, where something before a place was given up."""
        log = SegmentLog(self.directory, self._room.segment_bytes, self._quarantine, self._losses.drained)
        try:
            self._take_stock(log, given_up)
        except OSError as error:
            log.close()
            raise os_fault(self.directory, "read the spool", error) from error
        except BaseException:
            log.close()
            raise
        return log

    def _take_stock(self, log: SegmentLog, given_up: Place) -> None:
        """Count what waits; write into the ledger what is gone before the list of segments forgets it."""
        given_up = max(given_up, self._losses.reconcile(log, self._counted(log)))
        # Numbered behind all there ever were: what is on record of those must not be taken for theirs.
        log.note_given_up(given_up)
        log.number_behind(self._losses.highest)
        for number in log.missing:
            told = f"segment {number:012d} is missing: what it held is read from the log files again"
            self._losses.tell(told, "find out who removed it; what is not there any more is in the ledger")
        for name in log.foreign:
            self._losses.tell(f"{self.directory / name} is not the agent's; it is left alone", "move it elsewhere")
        for kept in log.settle():
            hint = "if a newer hostagent wrote it, that one's `hostagent spool replay` sends it; else it may be removed"
            self._losses.tell(kept, hint)
        if log.torn_bytes:
            torn = f"{log.torn_bytes} bytes at the end were being written when the agent died; they come again"
            self._losses.tell(torn, "")

    def _begin_anew(self, log: SegmentLog) -> SegmentLog:
        """Somebody has removed the directory: what it held, the block at the head included, is read from its files."""
        self._head = None
        for segment in list(log.segments):
            start = log.head[1] if segment.number == log.head[0] else 0
            if start < (end := log.durable_size(segment)):
                self._give_up(log, segment, Damage(start, end, "its directory was removed"))
        self._tally.nothing_left()
        fresh = self._open_log(Place(max(log.synced, log.head)[0] + 1, 0))
        log.close()
        return fresh

    def _counted(self, log: SegmentLog) -> Iterator[tuple[Segment, Frame | Damage]]:
        """Look at each block once: of small ones there may be a million."""
        for segment, found in log.frames(log.head):
            if _is_block(found):
                weight = weigh(found.header)
                self._tally.found(weight.records, weight.raw_bytes)
            yield segment, found

    def _next(self, log: SegmentLog) -> tuple[SpooledBlock, tuple[int, int]] | None:
        for segment, found in log.frames(log.head):
            if _is_block(found):
                payload = log.payload(segment, found)
                if payload is not None:
                    return decode_block(found.header, payload), (segment.number, found.end)
                damage = Damage(found.offset, found.end, "a payload's checksum is wrong", found.header)
            elif isinstance(found, Frame):
                damage = Damage(found.offset, found.end, f"a frame of kind {found.kind} is no block")
            else:
                damage = found
            self._give_up(log, segment, damage)
        self._tally.nothing_left()
        return None

    def _give_up(self, log: SegmentLog, segment: Segment, damage: Damage) -> None:
        """Go past damage: into the ledger first, then on. The segment goes to quarantine when it is drained."""
        self._losses.give_up(segment, [damage], LossReason.SPOOL_DAMAGED, fresh=log.is_fresh(segment))
        log.note_given_up((segment.number, damage.end))
        if damage.header is not None:
            self._tally.dropped(damage.header)
        segment.damage = segment.damage or damage.why
        what = f"{segment.path.name}, bytes {damage.start} to {damage.end}: {damage.why}"
        self._losses.tell(
            what,
            "what it held is read from its files, the rest is in the ledger; the drained segment goes to quarantine",
        )
        log.move_head((segment.number, damage.end))

    def _skip_unreadable(self, log: SegmentLog, why: str) -> None:
        """Reading failed again and again: give up the frame, or the rest of the segment if not even its head reads."""
        segment = next(one for one in log.segments if one.number >= log.head[0])
        start = log.head[1] if segment.number == log.head[0] else 0
        damage = Damage(start, segment.size, why)
        try:
            found = next(scan_segment(segment, start, segment.size))
            if _is_block(found):
                damage = Damage(start, found.end, why, found.header)
        except OSError:
            pass
        self._give_up(log, segment, damage)

    def _must_sync_first(self, need_bytes: int) -> bool:
        """Whether too much of the spool would lie in one segment, as what is appended at once does."""
        log = self._log
        return log is not None and not self._tally.all_synced and self._room.crowds(need_bytes, log.segments[-1].size)

    def _has_room(self, need_bytes: int) -> bool:
        """Whether a frame may be written now; with drop_oldest the oldest segments make room for it."""
        may_drop = self._config.when_full != "block" and need_bytes <= self._config.max_bytes
        while why := self._room.lacks(need_bytes, self._log.disk_bytes if self._log is not None else 0):
            if not may_drop or self._log is None or not self._drop_oldest(self._log):
                self._full = why
                return False
        self._full = ""
        return True

    def _drop_oldest(self, log: SegmentLog) -> bool:
        """Give up the oldest segment, but not the block somebody is delivering nor any that is not synced yet."""
        held = self._head[1][0] if self._head is not None else -1
        segment = next((one for one in log.segments if one.number != held), None)
        if segment is None or log.durable_size(segment) < segment.size:
            return False
        start = log.head[1] if segment.number == log.head[0] else 0
        found = list(scan_segment(segment, start, segment.size))
        if found:
            self._losses.give_up(segment, found, LossReason.SPOOL_DROPPED, fresh=log.is_fresh(segment))
        log.note_given_up((segment.number + 1, 0))
        log.remove(segment)
        for one in found:
            if _is_block(one):
                self._tally.dropped(one.header)
        return True

    def _tidy(self, log: SegmentLog) -> None:
        """Give the disk back when all is drained, but don't make and remove a file for each block of a slow backend."""
        if self._tally.empty:
            self._full = ""
            log.drop_drained()

    def _oldest_ns(self, log: SegmentLog) -> int | None:
        if self._head is not None:
            return self._head[0].header.observed_ns
        for _, found in log.frames(log.head):
            if _is_block(found):
                return weigh(found.header).observed_ns
        return None


def _is_block(found: Frame | Damage) -> TypeGuard[Frame]:
    return isinstance(found, Frame) and found.kind == BLOCK_FRAME
