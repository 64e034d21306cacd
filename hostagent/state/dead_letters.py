"""What backends refused for good, kept on disk with the reason until an operator decides.

A sender puts records here before it lets their block count as done; the command line lists, prints and requeues them.
Segments per output within a bound of its own; the oldest make room and go into the ledger first. It never talks to a
backend. Thread-safe.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import Delivery, Loss
from hostagent.state.database.ledger import LossReason
from hostagent.state.faults import os_fault
from hostagent.state.letters import (
    DEAD_LETTERS_DIRECTORY,
    GONE_FRAME,
    LETTER_FRAME,
    DeadLetter,
    LetterHeader,
    LetterPart,
    decode_gone,
    encode_gone,
    encode_header,
    encode_letter,
    letter_at,
    letters_of,
    read_records,
)
from hostagent.state.quarantine import Quarantine
from hostagent.state.segments.frames import PREFIX_BYTES, Damage, too_large
from hostagent.state.segments.log import SegmentLog
from hostagent.state.spool.spooled import directory_name

_WORDS: Mapping[str, str] = {
    LossReason.DEAD_LETTER_DAMAGED: "can't be read",
    LossReason.DEAD_LETTER_MISSING: "is gone",
}
# Letters put again after a crash are the newest ones.
_REMEMBERED = 4096
# Letters leave this much of the bound, or an eighth of it, to the notes which of them are gone.
_NOTES_BYTES = 64 * 1024


class DeadLetterStats(NamedTuple):
    """What is kept for one output, and records since start: what was kept then + taken - requeued - dropped."""

    disk_bytes: int = 0
    letters: int = 0
    records: int = 0
    taken: int = 0
    requeued: int = 0
    dropped: int = 0


class DeadLetters:
    """The dead letters of all outputs. `bound` says how much each may keep; an output without a bound keeps nothing."""

    def __init__(self, data_dir: Path, clock: Clock, on_loss: Callable[[Sequence[Loss]], None]) -> None:
        """An output's directory is opened when it is first asked for; one without dead letters has nothing on disk."""
        self._directory = data_dir / DEAD_LETTERS_DIRECTORY
        self._clock = clock
        self._on_loss = on_loss
        self._quarantine = Quarantine(data_dir, clock)
        self._lock = threading.Lock()
        self._bounds: dict[str, int] = {}
        self._boxes: dict[str, _Box] = {}

    def bound(self, output: str, max_bytes: int) -> None:
        """How much disk an output's dead letters may take; when it shrinks, the next that come make room."""
        with self._lock:
            self._bounds[output] = max_bytes
            if output in self._boxes:
                self._boxes[output].max_bytes = max_bytes

    def put(
        self,
        *,
        output: str,
        delivery: Delivery,
        letters: Sequence[tuple[bytes, str]],
        parts: Sequence[LetterPart] = (),
    ) -> None:
        """Store records with their reasons durably before returning; StateError when that is not possible now."""
        header, payload = encode_letter(output, self._clock.wall_ns(), delivery, letters, parts)
        with self._lock, self._saying_why():
            self._box(output).put(header, payload)

    def entries(self, output: str, limit: int | None = None) -> list[DeadLetter]:
        """What is kept for an output, oldest first, at most `limit` entries."""
        with self._lock, self._saying_why():
            return list(itertools.islice(self._box(output).entries(), limit)) if self._kept(output) else []

    def records(self, output: str, id_: str) -> list[bytes]:
        """The records of an entry, as the encoder had made them."""
        directory = self._directory / directory_name(output)
        return read_records(directory, id_)

    def forget(self, output: str, ids: Iterable[str]) -> None:
        """Entries that were requeued or are not wanted any more."""
        with self._lock, self._saying_why():
            self._box(output).forget(list(ids))

    def stats(self, output: str) -> DeadLetterStats:
        """How much is kept for an output."""
        with self._lock, self._saying_why():
            return self._box(output).stats() if self._kept(output) else DeadLetterStats()

    def notices(self) -> list[Notice]:
        """What an operator should know; looks into the directories of all outputs that have a bound."""
        notices = []
        for output in list(self._bounds):
            subject = f"dead letters {output}"
            try:
                with self._lock, self._saying_why():
                    notices += self._box(output).notices() if self._kept(output) else []
            except StateError as error:
                hint = "what is refused waits, and delivery of that output with it, until it works"
                notices.append(Notice(subject, f"they can't be used: {error}", hint))
        return notices

    def close(self) -> None:
        """Let another process have the directories."""
        with self._lock:
            for box in self._boxes.values():
                box.close()
            self._boxes.clear()

    @contextlib.contextmanager
    def _saying_why(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise os_fault(self._directory, "use the dead letters", error) from error

    def _leave_removed(self, output: str) -> None:
        """Leave a directory that somebody has removed: what is put into it now would be nowhere."""
        box = self._boxes.get(output)
        if box is not None and box.removed():
            box.give_up()
            del self._boxes[output]
            box.close()

    def _kept(self, output: str) -> bool:
        self._leave_removed(output)
        return output in self._boxes or (self._directory / directory_name(output)).exists()

    def _box(self, output: str) -> _Box:
        self._leave_removed(output)
        box = self._boxes.get(output)
        if box is None:
            directory = self._directory / directory_name(output)
            max_bytes = self._bounds.get(output, 0)
            log = SegmentLog(directory, max(max_bytes // 8, 64 * 1024), self._quarantine)
            try:
                box = _Box(log, output, max_bytes, self._clock, self._on_loss)
            except BaseException:
                log.close()
                raise
            self._boxes[output] = box
        return box


class _Box:
    """The dead letters of one output; its owner has the lock."""

    def __init__(
        self, log: SegmentLog, output: str, max_bytes: int, clock: Clock, on_loss: Callable[[Sequence[Loss]], None]
    ) -> None:
        self.max_bytes = max_bytes
        self._log = log
        self._output = output
        self._clock = clock
        self._on_loss = on_loss
        self._gone: set[str] = set()
        self._newest: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._letters: Counter[int] = Counter()  # those that are not gone, by their segments
        self._records = 0
        self._taken = 0
        self._requeued = 0
        self._dropped = 0
        self._found: list[Notice] = []
        self._inode = os.stat(log.directory).st_ino
        self._take_stock()

    def removed(self) -> bool:
        """Whether the directory or one of its segments has been taken away from under us."""
        try:
            there = os.stat(self._log.directory).st_ino == self._inode
        except FileNotFoundError:
            there = False
        return not there or not all(segment.path.exists() for segment in self._log.segments)

    def give_up(self) -> None:
        """Ledger what is gone: its list may be gone, too, when it is opened the next time."""
        gone = [one for one in self._log.segments if self._letters[one.number] and not one.path.exists()]
        names = [f"segment {one.number:012d}" for one in gone] if self._log.directory.exists() else [""]
        if gone:
            self._on_loss([self._loss(name, 0, LossReason.DEAD_LETTER_MISSING) for name in names])

    def put(self, header: LetterHeader, payload: bytes) -> None:
        if header.key in self._newest:
            return
        head = encode_header(header)
        size = PREFIX_BYTES + len(head) + len(payload)
        if size > self.max_bytes or too_large(head, payload):
            self._on_loss(list(self._losses_of("not kept", header)))
            self._dropped += len(header.sizes)
        else:
            self._make_room(size + min(_NOTES_BYTES, self.max_bytes // 8))
            number, _ = self._log.append(LETTER_FRAME, head, payload)
            self._log.sync()
            self._letters[number] += 1
            self._records += len(header.sizes)
        self._taken += len(header.sizes)
        self._newest.append(header.key)

    def entries(self) -> list[DeadLetter]:
        return [
            letter for segment in self._log.segments for letter in letters_of(segment) if letter.id not in self._gone
        ]

    def forget(self, ids: list[str]) -> None:
        found = (letter_at(self._log.segments, id_) for id_ in ids if id_ not in self._gone)
        going = {letter.id: letter for letter in found if letter is not None}
        if not going:
            return
        note = encode_gone(list(going))
        self._gone.update(going)  # before room is made: none of these is to be called lost
        try:
            self._make_room(PREFIX_BYTES + len(note))
            self._log.append(GONE_FRAME, note, b"")
            self._log.sync()
        except BaseException:
            self._gone.difference_update(going)
            raise
        records = sum(len(letter.header.sizes) for letter in going.values())
        for number in map(_segment_of, going):
            if number in self._letters:  # else its segment has just made room
                self._letters[number] -= 1
        self._records -= records
        self._requeued += records
        # From the oldest on only: a younger segment may say what is gone in an older one.
        while len(self._log.segments) > 1 and not self._letters[self._log.segments[0].number]:
            self._remove_oldest()

    def stats(self) -> DeadLetterStats:
        return DeadLetterStats(
            self._log.disk_bytes, self._letters.total(), self._records, self._taken, self._requeued, self._dropped
        )

    def notices(self) -> list[Notice]:
        if not self._dropped:
            return self._found
        message = f"{self._dropped} records made room for newer ones or were too large to keep, since the start"
        hint = "the ledger has them; requeue what waits, or raise dead_letters.max_bytes"
        return [*self._found, Notice(f"dead letters {self._output}", message, hint)]

    def close(self) -> None:
        self._log.close()

    def _take_stock(self) -> None:
        log = self._log
        lost = [self._loss(f"segment {number:012d}", 0, LossReason.DEAD_LETTER_MISSING) for number in log.missing]
        lost += [self._loss(one.path.name, 0, LossReason.DEAD_LETTER_DAMAGED) for one in log.unreadable]
        for segment, found in log.frames(log.head):
            if isinstance(found, Damage):
                lost.append(self._loss(segment.path.name, found.start, LossReason.DEAD_LETTER_DAMAGED))
            elif found.kind == GONE_FRAME:
                self._gone.update(decode_gone(found.header))
        if lost:
            self._on_loss(lost)
            hint = "it is in the ledger as of unknown size; look at the disk's health, and who changed the directory"
            subject = f"dead letters {self._output}"
            self._found = [Notice(subject, f"{one.path} {_WORDS[one.reason]}", hint) for one in lost]
        log.settle()
        for letter in self.entries():
            self._newest.append(letter.header.key)
            self._letters[_segment_of(letter.id)] += 1
            self._records += len(letter.header.sizes)

    def _make_room(self, need_bytes: int) -> None:
        while self._log.segments and self._log.disk_bytes + need_bytes > self.max_bytes:
            oldest = self._log.segments[0]
            going = [letter for letter in letters_of(oldest) if letter.id not in self._gone]
            if going:
                names = {letter.id: f"{oldest.path.name}:{letter.id}" for letter in going}
                self._on_loss([loss for letter in going for loss in self._losses_of(names[letter.id], letter.header)])
            self._remove_oldest()
            records = sum(len(letter.header.sizes) for letter in going)
            self._records -= records
            self._dropped += records

    def _remove_oldest(self) -> None:
        segment = self._log.segments[0]
        self._log.remove(segment)
        del self._letters[segment.number]
        self._gone = {id_ for id_ in self._gone if not id_.startswith(f"{segment.number}-")}

    def _losses_of(self, name: str, header: LetterHeader) -> Iterator[Loss]:
        """What an entry that is given up was: ranges where all of their records were in it, else of unknown size."""
        reason, at_ns = LossReason.DEAD_LETTER_DROPPED, self._clock.wall_ns()
        unknown = self._loss(name, 0, reason)
        if not header.parts:
            yield unknown
        for part in header.parts:
            if part.refused < part.records:
                yield msgspec.structs.replace(unknown, source=part.source)
                continue
            for file, start, end in part.ranges:
                yield Loss(part.source, "", file, start, end, reason, at_ns, self._output)

    def _loss(self, name: str, start: int, reason: LossReason) -> Loss:
        path = f"{DEAD_LETTERS_DIRECTORY}/{self._log.directory.name}/{name}".rstrip("/")
        return Loss("", path, 0, start, None, reason, self._clock.wall_ns(), self._output)


def _segment_of(id_: str) -> int:
    return int(id_.partition("-")[0])
