"""Files whose rows were closed because all of them was done, and that are needed again: a spool has lost some of it.

A file that was rotated to a name nobody wants is read to its end and let go; its lines are on the disk all the same.
Nothing is delivered of such a file but what is asked for, and nothing in its row changes.
"""

from __future__ import annotations

from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.files.known import from_row, lost_of
from hostagent.tail.files.lineage import find_continuation
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.finding.beneath import join
from hostagent.tail.finding.places import Places
from hostagent.tail.tailer import TailedFile

MOST = 256
"""So many are remembered, and held open as far as there are descriptors: a block has chunks of many files."""


class ClosedFiles:
    """Finds them by their rows' ids. In the reader's thread."""

    def __init__(self, files: OpenFiles, checkpoint: Checkpoint, places: Places) -> None:
        self._files = files
        self._checkpoint = checkpoint
        self._places = places
        self._found: dict[int, TailedFile | None] = {}

    def find(self, id_: int) -> TailedFile | None:
        """The file of a row, open where its content is now; None if that isn't beside the place where it was."""
        if id_ not in self._found:
            if len(self._found) >= MOST:
                self.let_go()
            self._found[id_] = self._look_for(id_)
        return self._found[id_]

    def is_awaited(self, id_: int) -> bool:
        """Whether a file was being read when the agent stopped, and no target of its kind has been published yet."""
        row = self._checkpoint.file(id_)
        return row is not None and row.gone_ns is None and row.target not in self._places.by_id

    def let_go(self) -> None:
        """None of them is needed now."""
        for tailed in self._found.values():
            if tailed is not None:
                self._files.release(tailed)
        self._found.clear()

    def _look_for(self, id_: int) -> TailedFile | None:
        row = self._checkpoint.file(id_)
        place = self._places.by_id.get(row.target) if row is not None else None
        if row is None or place is None:
            return None
        root = place.origin.target.root
        found = find_continuation(lost_of(row, root), self._files.tailers)
        if found is None:
            return None
        tailed = from_row(row, place.origin)
        tailed.path = join(root, found.path)
        tailed.identity = found.identity
        tailed.storage = found.storage
        tailed.unread = False
        self._files.take(tailed, found.content)
        return tailed
