"""The registry: every file that is being read or drained, by path, by identity and by row.

It keeps these maps true while files begin, move, are replaced and end. What happens to names is told by `sightings`,
when to read is the reader's business, and what of it reaches the checkpoint is written by `filerows`. Everything here
runs in the reader's thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import FileId
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.rows import FileRow
from hostagent.tail.files.filerows import SAVE_S, FileRows
from hostagent.tail.files.identity import first_fingerprint, identify
from hostagent.tail.files.known import KnownRows, from_row
from hostagent.tail.files.lineage import Continuation, How
from hostagent.tail.files.openfiles import Opened, OpenFiles
from hostagent.tail.finding.beneath import NotThereError, join, path_of
from hostagent.tail.finding.paths import behind_link
from hostagent.tail.origin import Origin
from hostagent.tail.ports import Lane
from hostagent.tail.refused import Refused
from hostagent.tail.tailer import PLAIN, TailedFile


class Registry:
    """The files. A TailedFile is changed through here wherever one of the maps depends on it."""

    def __init__(self, files: OpenFiles, checkpoint: Checkpoint, known: KnownRows, clock: Clock) -> None:
        self.files = files
        self.known = known
        self.checkpoint = checkpoint
        self.rows = FileRows(checkpoint, known, clock)
        self.by_path: dict[str, TailedFile] = {}
        self.by_identity: dict[FileId, TailedFile] = {}
        self.ended: dict[TailedFile, None] = {}
        self.followed: dict[TailedFile, float] = {}
        self.displaced: dict[str, TailedFile] = {}  # by the path that another file has taken from them
        self.looks = 0  # how often events have been taken in
        self._clock = clock
        self._stale: set[str] = set()
        self.refused = Refused()

    # -- opening -------------------------------------------------------------------------------------------------

    def open(self, origin: Origin, path: str) -> Opened | None:
        """Open what is behind a path; None, with a notice, if it can't be read as a log."""
        try:
            opened = self.files.open_path(origin, path)
        except NotThereError:
            self.refused.discard(path)
            return None
        except OSError as error:
            self.refused.add_error(path, error)
            return None
        try:
            storage = self.files.storage_of(os.path.basename(path), opened.content)
        except OSError as error:
            opened.content.close()
            self.refused.add_error(path, error)
            return None
        if storage != PLAIN:
            opened.content.close()
            self._refuse_stored(path, storage)
            return None
        self.refused.discard(path)
        return opened

    def _refuse_stored(self, path: str, storage: str) -> None:
        hint = "a compressed file is only read on from where its plain file was left; exclude it to silence this"
        self.refused.add(path, f"is stored as {storage} and not read as a log", hint)

    def turned_out_stored(self, tailed: TailedFile) -> bool:
        """Whether a file that was empty when it was found is no log but a compressed one; then it is let go.

        Whoever compresses makes the file first and fills it then.
        """
        if tailed.head or tailed.storage != PLAIN or tailed.content is None:
            return False
        try:
            storage = self.files.storage_of(os.path.basename(tailed.path), tailed.content)
            if storage == PLAIN:
                return False
            self.retire(tailed)
        except OSError:
            return False  # the read that comes next tells
        except StateError:
            return True  # it is found out again
        self._refuse_stored(tailed.path, storage)
        return True

    def ensure_open(self, tailed: TailedFile) -> bool:
        """Have the file open for reading; a file that isn't behind its path any more loses its place."""
        try:
            if self.files.ensure(tailed):
                self.refused.discard(tailed.path)
                return True
        except OSError as error:
            self.unreadable(tailed, error)
            return False
        self._stale.add(tailed.origin.target.id)
        self.lose(tailed)
        return False

    def unreadable(self, tailed: TailedFile, error: OSError) -> None:
        """Note that a file can't be read now; the next scan tries again."""
        self.refused.add_error(tailed.path, error)

    # -- beginning -----------------------------------------------------------------------------------------------

    def adopt(self, tailed: TailedFile, opened: Opened) -> None:
        """Take a file under its path and identity; a new one gets its row later."""
        tailed.identity = opened.status.id
        tailed.begun_in_look = self.looks
        self.files.take(tailed, opened.content)
        self.adopt_closed(tailed)

    def adopt_closed(self, tailed: TailedFile) -> None:
        """Take a file that stands at its path and may not be opened now; each scan finds out whether it may."""
        tailed.origin.served = True
        if tailed.path not in self.by_path:
            self._bind(tailed.path, tailed)
        self.by_identity[tailed.identity] = tailed
        self.rows.add(tailed)

    def begin(self, origin: Origin, path: str, opened: Opened, *, recorded_path: str | None = None) -> TailedFile:
        """Make a new file of what was opened; its first byte is the first to be read, unless it was read before."""
        former = self.known.recall(opened)
        if former is not None:
            return self._take_up(former, origin, path, opened)
        tailed = TailedFile(path, opened.status.id, origin, seen_ns=self._clock.wall_ns())
        tailed.recorded_path = recorded_path or tailed.recorded_path
        tailed.fingerprint = first_fingerprint(opened.content)
        self.adopt(tailed, opened)
        return tailed

    def _take_up(self, former: FileRow, origin: Origin, path: str, opened: Opened) -> TailedFile:
        """Go on with a file that was closed and is back, or that an earlier configuration had in another target."""
        if former.gone_ns is not None:
            # Its row may be forgotten any moment, and no block in flight names it: begin another one where it ended.
            former = msgspec.structs.replace(former, id=0, path=path, tags=origin.target.tags)
        tailed = from_row(former, origin)
        tailed.path = path
        self.adopt(tailed, opened)
        if tailed.row:
            self.rows.note_outputs(tailed, former.positions)
            self.rows.note_change(tailed)
        return tailed

    def succeed(self, tailed: TailedFile) -> TailedFile:
        """The file's content was replaced in place: begin its next generation, with the same descriptor."""
        fresh = TailedFile(tailed.path, tailed.identity, tailed.origin, seen_ns=self._clock.wall_ns())
        fresh.recorded_path = tailed.recorded_path
        fresh.tags = tailed.tags
        fresh.generation = tailed.generation + 1
        for path in tailed.paths:
            self.unbind(path)
            self._bind(path, fresh)
        self.by_identity[fresh.identity] = fresh
        self.files.give(tailed, fresh)
        assert fresh.content is not None
        fresh.fingerprint = first_fingerprint(fresh.content)
        self.rows.add(fresh)
        return fresh

    def follow(self, fresh: TailedFile, before: TailedFile | None) -> None:
        """A file took the place of another, and a record may run from the older file into it.

        The older one may only have been moved aside. Then it goes on under its other name, and its writer may write to
        it for another moment.
        """
        fresh.follow(before)
        if before is not None and not before.ended:
            self.followed[before] = self._clock.monotonic_s()

    def is_settled(self, tailed: TailedFile) -> bool:
        """Whether everything has been heard that happened before the file was opened.

        Since the event that led to it, its name may have been that of other files, and these come before it.
        """
        return tailed.begun_in_look != self.looks

    # -- names ---------------------------------------------------------------------------------------------------

    def _bind(self, path: str, tailed: TailedFile) -> None:
        self.by_path[path] = tailed
        if path not in tailed.paths:
            tailed.paths = (*tailed.paths, path)

    def unbind(self, path: str) -> TailedFile | None:
        """A path leads to no known file from now on; the file it led to."""
        tailed = self.by_path.pop(path, None)
        if tailed is not None:
            tailed.paths = tuple(other for other in tailed.paths if other != path)
        return tailed

    def displace(self, path: str) -> None:
        """Another file has taken the path, or none has it: its file goes on under another name, or ends."""
        tailed = self.unbind(path)
        if tailed is not None:
            self.displaced[path] = tailed
            self.lose_path(tailed)

    def forget_displaced(self) -> None:
        """Before everything is scanned: what was displaced earlier is of no more interest once it is closed."""
        self.displaced = {path: tailed for path, tailed in self.displaced.items() if not tailed.closed}

    def lose_path(self, tailed: TailedFile) -> None:
        """One of the file's paths is gone: it goes on under another path it has, or else has lost its place."""
        if tailed.paths and not tailed.ended:
            if tailed.path not in tailed.paths:
                self._repath(tailed, tailed.paths[0])
        else:
            self.lose(tailed)

    def move(self, tailed: TailedFile, path: str) -> None:
        """The file has another name."""
        self._bind(path, tailed)
        self._repath(tailed, path)

    def alias(self, tailed: TailedFile, path: str, origin: Origin) -> None:
        """One more path (hard link, symbolic link) of a file that is read already, or its place found again."""
        origin.served = True
        self._bind(path, tailed)
        back = tailed.ended and not tailed.closed
        if back:
            tailed.ended_at_s = None
            tailed.drained = False
            tailed.drop_size = None
            self.ended.pop(tailed, None)
        if self.by_path.get(tailed.path) is not tailed:
            self._repath(tailed, path)
        if back and tailed.origin is not origin and self.ensure_open(tailed):
            self.reassign(tailed, origin)

    def hand_over(self, tailed: TailedFile, origin: Origin) -> None:
        """A file's target has changed: go on for it, also with what is left of a file that has lost its place.

        What an output that was replaced had not acked is read again for its successor, so a file that was read to its
        end, and only waited for that ack, is opened once more.
        """
        if tailed.drained:
            if tailed.all_acked() or all(lane in origin.lanes for lane in tailed.origin.lanes):
                return
            tailed.drained = False
        self.ensure_open(tailed)
        self.reassign(tailed, origin)
        tailed.unread = True

    def shed(self, tailed: TailedFile, lanes: Collection[Lane]) -> None:
        """Read a file without a target no longer for outputs that are not among these; for none, let it go."""
        origin = tailed.origin
        left = tuple(lane for lane in origin.lanes if lane in lanes)
        if left and len(left) < len(origin.lanes):
            self.reassign(tailed, Origin(origin.target, origin.chain, left, origin.constants, origin.policy))
        elif not left:
            try:
                self.retire(tailed)
            except StateError:
                tailed.drained = True  # it holds nothing open, and a start closes its row

    def reassign(self, tailed: TailedFile, origin: Origin) -> None:
        """Go on with an open file for a target that has changed, or for another one."""
        before = [lane.name for lane in tailed.origin.lanes]
        if tailed.origin.target.id != origin.target.id:
            # After a restart the file must be found among those of its new target.
            self.rows.note_change(tailed)
        tailed.reassign(origin)
        if tailed.row:
            self.rows.note_outputs(tailed, before)

    def real_path(self, tailed: TailedFile) -> str | None:
        """Where a file that was found through a symbolic link really is; its writes are heard there."""
        if tailed.origin.target.root != "/":
            return None
        # There may be more files than descriptors already when they are found.
        real = os.path.realpath(tailed.path) if tailed.content is None else path_of(tailed.content.fd)
        if real == tailed.path or real in self.by_path or behind_link(real)[0] != tailed.identity.inode:
            return None
        self._bind(real, tailed)
        return real

    def _repath(self, tailed: TailedFile, path: str) -> None:
        moved = os.path.dirname(path) != os.path.dirname(tailed.path)
        tailed.path = path
        # A start looks for a file in the directory where it was: of another one it must know.
        self.rows.note_change(tailed, 0.0 if moved else SAVE_S)

    # -- content that goes on elsewhere --------------------------------------------------------------------------

    def relocate(self, tailed: TailedFile, found: Continuation) -> None:
        """The file's content goes on at another path (a copy, a `.gz`): same row, same offsets, new identity."""
        tailed.path = join(tailed.origin.target.root, found.path)
        tailed.storage = found.storage
        tailed.is_copy = found.how is not How.RENAMED
        self.adopt(tailed, Opened(found.content, identify(found.content.fd)))
        self.rows.note_change(tailed)

    # -- ending --------------------------------------------------------------------------------------------------

    def lose(self, tailed: TailedFile) -> None:
        """The file has lost its place: drain it, hold it while somebody writes to it, then close it."""
        if not tailed.ended and not tailed.closed:
            tailed.ended_at_s = self._clock.monotonic_s()
            self.ended[tailed] = None
            self.checkpoint.note_file_lost()

    def last_ended_at(self, path: str, origin: Origin) -> TailedFile | None:
        """The file that lost its place last among those that were recorded under a path."""
        recorded = origin.recorded(path)
        same = (old for old in reversed(self.ended) if old.recorded_path == recorded and old.origin is origin)
        return next(same, None)

    def retire(self, tailed: TailedFile) -> None:
        """Every byte of the file is delivered and nothing will follow: its row is marked gone. Raises StateError."""
        self.rows.close(tailed)
        self.checkpoint.note_file_lost()
        tailed.closed = True
        self.files.release(tailed)
        self.ended.pop(tailed, None)
        self.followed.pop(tailed, None)
        self.refused.forget(tailed)
        if self.by_identity.get(tailed.identity) is tailed:
            del self.by_identity[tailed.identity]
        for path in tailed.paths:
            self.unbind(path)

    # -- looking after ------------------------------------------------------------------------------------------

    def all_files(self) -> list[TailedFile]:
        """Every file that is being read or drained."""
        return [*self.rows.by_id.values(), *self.rows.new]

    def take_stale(self) -> set[str]:
        """The targets whose paths turned out not to be what was thought; asking empties it."""
        stale, self._stale = self._stale, set()
        return stale

    def notices(self) -> list[Notice]:
        """Files that can't be read, and why."""
        return self.refused.notices()
