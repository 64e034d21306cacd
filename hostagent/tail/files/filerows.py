"""What the checkpoint is told of the files: a row for each new one, where its outputs begin, and what changes later.

The registry says what happened, this module decides when it is written and tries again while the checkpoint can't be.
It reads nothing back: rows of an earlier run are `known`'s. Everything here runs in the reader's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.positions import Start
from hostagent.state.rows import FileRow
from hostagent.tail.files.identity import first_fingerprint
from hostagent.tail.files.known import KnownRows
from hostagent.tail.tailer import TailedFile

SAVE_S = 1.0
RETRY_S = 1.0


class FileRows:
    """The rows of the files that are being read or drained. `stalled` while the checkpoint takes no new ones."""

    def __init__(self, checkpoint: Checkpoint, known: KnownRows, clock: Clock) -> None:
        self.by_id: dict[int, TailedFile] = {}
        self.new: list[TailedFile] = []
        self.stalled = False
        self._checkpoint = checkpoint
        self._known = known
        self._clock = clock
        self._retry_at_s = 0.0
        self._starts: list[Start] = []
        self._dropped: list[tuple[int, str]] = []
        self._dirty: dict[TailedFile, None] = {}
        self._save_at_s: float | None = None

    def add(self, tailed: TailedFile) -> None:
        """Another file: one that an earlier row is for keeps it, any other gets its own with the next `register`."""
        if tailed.row:
            self.by_id[tailed.row] = tailed
        else:
            self.new.append(tailed)

    def note_outputs(self, tailed: TailedFile, before: Collection[str]) -> None:
        """A known file's outputs have changed: new ones begin where their cursor stands, others get no more of it."""
        now = {lane.name: cursor for cursor in tailed.cursors for lane in cursor.lanes}
        self._starts += [
            (tailed.row, name, cursor.offset, cursor.anchor) for name, cursor in now.items() if name not in before
        ]
        self._dropped += [(tailed.row, name) for name in before if name not in now]

    def register(self) -> bool:
        """Give new files their rows and new outputs their places; False while the checkpoint can't take them.

        Nothing can be read then: what an output is to have of a file must be on record before it has any.
        """
        if not (self.new or self._starts or self._dropped):
            return True
        if self.stalled and self._clock.monotonic_s() < self._retry_at_s:
            return False
        try:
            ids = self._checkpoint.add_files([first_row(tailed) for tailed in self.new])
            for tailed, row in zip(self.new, ids, strict=True):
                tailed.row = row
                tailed.noted_length = tailed.fingerprint.length
                self.by_id[row] = tailed
            self.new.clear()
            if self._starts or self._dropped:
                self._checkpoint.set_positions(self._starts, self._dropped)
        except StateError:
            self.stalled = True
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
            return False
        self._starts.clear()
        self._dropped.clear()
        self.stalled = False
        return True

    def note_change(self, tailed: TailedFile, wait_s: float = SAVE_S) -> None:
        """Something that is kept of a file is different; it is written within `wait_s`."""
        if tailed.row:
            self._dirty[tailed] = None
            save_at_s = self._clock.monotonic_s() + wait_s
            self._save_at_s = save_at_s if self._save_at_s is None else min(save_at_s, self._save_at_s)

    def note_beginning(self, tailed: TailedFile) -> None:
        """Have the checkpoint know how a file begins before anything of it is in flight.

        It was empty when it got its row. If the agent died now and the file was copied and truncated meanwhile, the
        next start could neither see that it has other content nor find the copy, and would send that once more.
        """
        if tailed.noted_length or tailed.content is None:
            return
        tailed.fingerprint = first_fingerprint(tailed.content)
        if not tailed.fingerprint.length:
            return
        try:
            self._checkpoint.update_files([tailed.to_row()])
        except StateError:
            return  # then no block can be in flight either
        tailed.noted_length = tailed.fingerprint.length

    def note_growth(self, tailed: TailedFile) -> None:
        """More was read of a file: its fingerprint may have grown with it."""
        if tailed.fingerprint.length != tailed.noted_length:
            # Without any fingerprint a row can't be found again in a copy or a `.gz`: the first one is not put off.
            wait_s = SAVE_S if tailed.noted_length else 0.0
            tailed.noted_length = tailed.fingerprint.length
            self.note_change(tailed, wait_s)

    def due_s(self, now_s: float) -> float:
        """Seconds until `save` has something to do."""
        due_s = float("inf") if self._save_at_s is None else self._save_at_s
        return min(due_s, self._retry_at_s) - now_s if self.stalled else due_s - now_s

    def save(self, now_s: float) -> None:
        """Write down what changed about files, at most once a second."""
        if self._save_at_s is None or now_s < self._save_at_s:
            return
        try:
            self._checkpoint.update_files([tailed.to_row() for tailed in self._dirty])
        except StateError:
            self._save_at_s = now_s + RETRY_S
            return
        self._dirty.clear()
        self._save_at_s = None

    def close(self, tailed: TailedFile) -> None:
        """Mark the row of a file gone that nothing will follow. Raises StateError, and then nothing is changed."""
        if tailed.row:
            row = tailed.to_row(gone_ns=self._clock.wall_ns())
            self._checkpoint.update_files([row])
            if tailed.all_acked():
                self._known.remember(msgspec.structs.replace(row, positions=tailed.positions()))
        elif tailed in self.new:
            self.new.remove(tailed)
        self._dirty.pop(tailed, None)
        self.by_id.pop(tailed.row, None)

    def mark_gone(self, rows: Iterable[FileRow]) -> None:
        """Close rows whose files can't be found again. Raises StateError."""
        now_ns = self._clock.wall_ns()
        gone = [msgspec.structs.replace(row, gone_ns=now_ns) for row in rows]
        for row in gone:
            self._known.remember(row)
        self._checkpoint.update_files(gone)


def first_row(tailed: TailedFile) -> FileRow:
    """A new file's first row, with the place where each output begins, so that none is taken for a later addition."""
    return msgspec.structs.replace(tailed.to_row(), positions=tailed.positions())
