"""Files that were gone before they could be opened: put on record, so that no loss is silent.

`finding.unseen` says which they are. Each gets a row of its own, without a content to know it by, and a line in the
loss ledger of unknown size. Owns how much of that is written: whoever may create files can do so by the thousand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.model import FileId, Loss
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.ledger import LossReason
from hostagent.tail.files.filerows import first_row
from hostagent.tail.finding.unseen import Appeared
from hostagent.tail.tailer import TailedFile

NAMED = 20
WINDOW_S = 10.0
"""So many files of a target are named in so much time. All others share one line, under their directory and a `*`."""

_NOBODY = FileId(0, 0, 0)


class Missed:
    """The files that are still to be put on record. The reader's thread alone."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock) -> None:
        self._checkpoint = checkpoint
        self._clock = clock
        self._waiting: list[TailedFile] = []
        self._counts: dict[str, int] = {}
        self._window_ends_s = 0.0

    def note(self, files: Iterable[Appeared]) -> None:
        """These were missed."""
        for file in files:
            file.origin.served = True
            now_s = self._clock.monotonic_s()
            if now_s >= self._window_ends_s:
                self._counts.clear()
                self._window_ends_s = now_s + WINDOW_S
            target = file.origin.target.id
            count = self._counts[target] = self._counts.get(target, 0) + 1
            if count <= NAMED + 1:
                path = file.path if count <= NAMED else os.path.join(os.path.dirname(file.path), "*")
                self._waiting.append(TailedFile(path, _NOBODY, file.origin, seen_ns=self._clock.wall_ns()))

    def save(self) -> None:
        """Write down what waits; what the checkpoint doesn't take now goes on waiting.

        The rows are closed last: those of an agent that dies in between are found lost by the next one.
        """
        if not self._waiting:
            return
        at_ns = self._clock.wall_ns()
        try:
            ids = self._checkpoint.add_files([first_row(tailed) for tailed in self._waiting])
            for tailed, row in zip(self._waiting, ids, strict=True):
                tailed.row = row
            self._checkpoint.add_losses([_loss(tailed, at_ns) for tailed in self._waiting])
            self._checkpoint.update_files([tailed.to_row(gone_ns=at_ns) for tailed in self._waiting])
        except StateError:
            return
        self._waiting.clear()


def _loss(tailed: TailedFile, at_ns: int) -> Loss:
    source = tailed.origin.target.source
    return Loss(source, tailed.recorded_path, tailed.row, 0, None, LossReason.UNSEEN, at_ns)
