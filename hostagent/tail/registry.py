"""The registry: which files exist for which targets, and which of them have something to read.

Targets come in from discoveries, events from the watcher, and a slow scan makes up for whatever both missed. The
registry maps paths and identities to TailedFiles and notices when a file loses its place; reading, draining and
rotation belong to `reader`, `ending` and `copies`. Everything here runs in the reader's thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import FileId
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.rows import FileRow, Position
from hostagent.tail.beneath import NotThereError, OpenError, beneath, join, path_of
from hostagent.tail.copies import Copies
from hostagent.tail.identity import FINGERPRINT_BYTES, fingerprint, identify
from hostagent.tail.lineage import Continuation, Lost, find_continuation
from hostagent.tail.openfiles import Opened, OpenFiles
from hostagent.tail.paths import Selection, scan
from hostagent.tail.tailer import PLAIN, Origin, TailedFile
from hostagent.tail.watcher import Event, Kind, Watcher

RESCAN_SHARE = 200
"""A full scan runs at most once in RESCAN_SHARE times its own length: half a percent of one core."""

SAVE_S = 1.0
RETRY_S = 1.0


class Place(NamedTuple):
    """A target with its compiled patterns."""

    origin: Origin
    selection: Selection


class Registry:
    """Targets, directories, paths and files, kept together."""

    def __init__(
        self, watcher: Watcher, files: OpenFiles, checkpoint: Checkpoint, clock: Clock, rescan_interval_s: float
    ) -> None:
        self.files = files
        self.checkpoint = checkpoint
        self.by_row: dict[int, TailedFile] = {}
        self.by_path: dict[str, TailedFile] = {}
        self.ended: dict[TailedFile, None] = {}
        self.copies = Copies(self, clock)
        self.stalled = False
        self.overflows = 0
        self.rescans = 0
        self.places: dict[str, Place] = {}
        self._watcher = watcher
        self._clock = clock
        self._rescan_interval_s = rescan_interval_s
        self._rescan_at_s = clock.monotonic_s() + rescan_interval_s
        self._save_at_s: float | None = None
        self._retry_at_s = 0.0
        self._directories: dict[str, set[str]] = {}
        self._by_identity: dict[FileId, TailedFile] = {}
        self._moving: dict[int, TailedFile] = {}
        self._new: list[TailedFile] = []
        self._dirty: dict[TailedFile, None] = {}
        self._stale: set[str] = set()
        self._problems: dict[str, Notice] = {}

    # -- targets -------------------------------------------------------------------------------------------------

    def add_place(self, place: Place) -> dict[str, Opened]:
        """Watch a target's directories and open what stands at its paths now; the caller makes files of it.

        Directories are watched before they are listed, so that nothing can appear in between.
        """
        self.places[place.origin.target.id] = place
        found: dict[str, Opened] = {}
        for path in self._scan(place):
            if path in self.by_path:
                continue
            opened = self.open(place.origin, path)
            if opened is None:
                continue
            known = self._by_identity.get(opened.status.id)
            if known is not None:
                self._alias(known, path)
                opened.content.close()
            else:
                found[path] = opened
        return found

    def remove_place(self, target_id: str) -> None:
        """The target is gone: its files are drained and closed, its directories no longer watched."""
        place = self.places.pop(target_id, None)
        if place is None:
            return
        for directory, targets in list(self._directories.items()):
            targets.discard(target_id)
            if not targets:
                del self._directories[directory]
                self._watcher.unwatch(directory)
        for tailed in [tailed for tailed in self.all_files() if tailed.origin is place.origin]:
            self.lose(tailed)

    def _scan(self, place: Place) -> Iterator[str]:
        target = place.origin.target
        notices: list[Notice] = []

        def watch(directory: str) -> None:
            self._watch(join(target.root, directory), target.id, target.root)

        for found in scan(target.root, place.selection, on_directory=watch, notices=notices):
            yield join(target.root, found.path)
        for notice in notices:
            self._problems[notice.subject] = notice

    def _watch(self, directory: str, target_id: str, root: str = "/") -> None:
        # Asked again with every scan: the path may lead to another directory by now.
        if self._watcher.watch(directory, root):
            self._directories.setdefault(directory, set()).add(target_id)

    # -- files ---------------------------------------------------------------------------------------------------

    def open(self, origin: Origin, path: str) -> Opened | None:
        """Open what is behind a path; None, with a notice, if it can't be read as a log."""
        try:
            opened = self.files.open_path(origin, path)
        except NotThereError:
            return None
        except OpenError as error:
            self._problems[path] = Notice(path, str(error), error.hint)
            return None
        storage = self.files.storage_of(os.path.basename(path), opened.content)
        if storage != PLAIN:
            opened.content.close()
            self._problems[path] = Notice(
                path,
                f"is stored as {storage} and not read as a log",
                "a compressed file is only read on from where its plain file was left; exclude it to silence this",
            )
            return None
        self._problems.pop(path, None)
        return opened

    def _bind(self, path: str, tailed: TailedFile) -> None:
        self.by_path[path] = tailed
        if path not in tailed.paths:
            tailed.paths = (*tailed.paths, path)

    def _unbind(self, path: str) -> TailedFile | None:
        tailed = self.by_path.pop(path, None)
        if tailed is not None:
            tailed.paths = tuple(other for other in tailed.paths if other != path)
        return tailed

    def adopt(self, tailed: TailedFile, opened: Opened) -> None:
        """Take a file under its path and identity; it gets its row with the next `register_new`."""
        tailed.identity = opened.status.id
        if tailed.path not in self.by_path:
            self._bind(tailed.path, tailed)
        self._by_identity[tailed.identity] = tailed
        self.files.take(tailed, opened.content)
        if tailed.row:
            self.by_row[tailed.row] = tailed
        else:
            self._new.append(tailed)
        self._watch_real(tailed)

    def _watch_real(self, tailed: TailedFile) -> None:
        """A symbolic link's directory shows no writes: watch the directory of the file it leads to as well."""
        assert tailed.content is not None
        if tailed.origin.target.root != "/":
            return
        real = path_of(tailed.content.fd)
        if real != tailed.path and real not in self.by_path and os.path.exists(real):
            self._bind(real, tailed)
            self._watch(os.path.dirname(real), tailed.origin.target.id)

    def _alias(self, tailed: TailedFile, path: str) -> None:
        """One more path (hard link, symbolic link) of a file that is read already, or its place found again."""
        self._bind(path, tailed)
        if tailed.ended and not tailed.closed:
            tailed.ended_at_s = None
            self.ended.pop(tailed, None)
        if self.by_path.get(tailed.path) is not tailed:
            self._repath(tailed, path)

    def begin(self, origin: Origin, path: str, opened: Opened) -> TailedFile:
        """Make a new file of what was opened; its first byte is the first to be read."""
        tailed = TailedFile(path, opened.status.id, origin, seen_ns=self._clock.wall_ns())
        tailed.fingerprint = fingerprint(opened.content) or tailed.fingerprint
        self.adopt(tailed, opened)
        return tailed

    def succeed(self, tailed: TailedFile) -> TailedFile:
        """The file's content was replaced in place: begin its next generation, with the same descriptor."""
        fresh = TailedFile(tailed.path, tailed.identity, tailed.origin, seen_ns=self._clock.wall_ns())
        fresh.recorded_path = tailed.recorded_path
        fresh.tags = tailed.tags
        fresh.generation = tailed.generation + 1
        for path in tailed.paths:
            self._unbind(path)
            self._bind(path, fresh)
        self._by_identity[fresh.identity] = fresh
        self.files.give(tailed, fresh)
        assert fresh.content is not None
        fresh.fingerprint = fingerprint(fresh.content) or fresh.fingerprint
        self._new.append(fresh)
        return fresh

    def find_rest(self, tailed: TailedFile) -> int | None:
        """Look for a copy of the content that was replaced, and let the file go on there; the copy's size."""
        leader = tailed.leader()
        root = tailed.origin.target.root
        directory, name = os.path.split(beneath(root, tailed.path))
        lost = Lost(directory, name, tailed.identity, tailed.fingerprint, leader.offset, leader.anchor, root)
        found = find_continuation(lost, self.files.tailers, owned=self._by_identity)
        if found is None:
            return None
        self.relocate(tailed, found)
        return tailed.size() or leader.offset

    def relocate(self, tailed: TailedFile, found: Continuation) -> None:
        """The file's content goes on at another path (a copy, a `.gz`): same row, same offsets, new identity."""
        path = join(tailed.origin.target.root, found.path)
        self.copies.gone(path)
        tailed.path = path
        tailed.storage = found.storage
        self.adopt(tailed, Opened(found.content, identify(found.content.fd)))
        self._soil(tailed)

    def identities(self) -> set[FileId]:
        """The files that are being read, by what the kernel calls them."""
        return set(self._by_identity)

    def lose(self, tailed: TailedFile) -> None:
        """The file has lost its place: drain it, hold it while somebody writes to it, then close it."""
        if tailed.ended or tailed.closed:
            return
        tailed.ended_at_s = self._clock.monotonic_s()
        self.ended[tailed] = None
        try:
            self.files.ensure(tailed)
        except OSError:
            pass

    def retire(self, tailed: TailedFile) -> None:
        """Every byte of the file is delivered and nothing will follow: its row is marked gone."""
        self.drop(tailed)
        if tailed.row:
            self.checkpoint.update_files([tailed.to_row(gone_ns=self._clock.wall_ns())])

    def mark_gone(self, rows: Iterable[FileRow]) -> None:
        """Close rows whose files can't be found again."""
        now_ns = self._clock.wall_ns()
        self.checkpoint.update_files([msgspec.structs.replace(row, gone_ns=now_ns) for row in rows])

    def drop(self, tailed: TailedFile) -> None:
        """Forget the file in memory; its row stays."""
        tailed.closed = True
        self.files.release(tailed)
        self.ended.pop(tailed, None)
        self._dirty.pop(tailed, None)
        self.by_row.pop(tailed.row, None)
        if self._by_identity.get(tailed.identity) is tailed:
            del self._by_identity[tailed.identity]
        for path in tailed.paths:
            self._unbind(path)

    def register_new(self) -> bool:
        """Give new files their rows; False while the checkpoint can't take them (then nothing can be read)."""
        if not self._new:
            return True
        if self.stalled and self._clock.monotonic_s() < self._retry_at_s:
            return False
        rows = [initial_row(tailed) for tailed in self._new]
        try:
            ids = self.checkpoint.add_files(rows)
        except StateError:
            self.stalled = True
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
            return False
        for tailed, row in zip(self._new, ids, strict=True):
            tailed.row = row
            self.by_row[row] = tailed
        self._new.clear()
        self.stalled = False
        return True

    def ensure_open(self, tailed: TailedFile) -> bool:
        """Have the file open for reading; a file that isn't behind its path any more loses its place."""
        try:
            if self.files.ensure(tailed):
                return True
        except OSError as error:
            self.unreadable(tailed, error)
            return False
        self._stale.add(tailed.origin.target.id)
        self.lose(tailed)
        return False

    def unreadable(self, tailed: TailedFile, error: OSError) -> None:
        """Note that a file can't be read now; the next scan tries again."""
        hint = error.hint if isinstance(error, OpenError) else "it is tried again with every scan"
        self._problems[tailed.path] = Notice(tailed.path, f"can't be read: {error.strerror or error}", hint)

    def note_growth(self, tailed: TailedFile) -> None:
        """A file has grown: its fingerprint may grow with it."""
        if tailed.fingerprint.length < FINGERPRINT_BYTES and tailed.content is not None:
            grown = fingerprint(tailed.content, tailed.fingerprint)
            if grown is not None and grown != tailed.fingerprint:
                tailed.fingerprint = grown
                self._soil(tailed)

    def all_files(self) -> list[TailedFile]:
        """Every file that is being read or drained."""
        return [*self.by_row.values(), *self._new]

    def notices(self) -> list[Notice]:
        """What can't be read or watched as it should be, and why."""
        return [*self._problems.values(), *self.copies.notices(), *self._watcher.notices()]

    @property
    def directories(self) -> int:
        """How many directories are watched or polled."""
        return len(self._directories)

    @property
    def polled(self) -> int:
        """How many of them are polled, because the kernel doesn't watch them."""
        return len(self._watcher.polled)

    # -- events --------------------------------------------------------------------------------------------------

    def apply(self, events: Iterable[Event]) -> list[TailedFile]:
        """Let events change the picture; the files that may have something to read now."""
        ready: list[TailedFile] = []
        moved_out = self._moving
        self._moving = {}
        for event in events:
            tailed = self._apply(event, moved_out)
            if tailed is not None:
                ready.append(tailed)
        # A MOVED_FROM whose MOVED_TO did not follow at once or in the next read went where nobody watches.
        for tailed in moved_out.values():
            self.lose(tailed)
            ready.append(tailed)
        for target_id in [*self._stale]:
            self._stale.discard(target_id)
            ready.extend(self.rescan(target_id))
        return ready

    def _apply(self, event: Event, moved_out: dict[int, TailedFile]) -> TailedFile | None:
        if event.kind is Kind.OVERFLOW:
            self.overflows += 1
            self._stale.update(self.places)
            return None
        if event.kind is Kind.DIRECTORY_GONE:
            self._stale.update(self._directories.pop(event.directory, ()))
            return None
        path = join(event.directory, "/" + event.name)
        if event.kind in (Kind.MODIFIED, Kind.CLOSED):
            return self.by_path.get(path) or self.copies.look(path)
        if event.is_dir:
            self._stale.update(self._directories.get(event.directory, ()))
            return None
        if event.kind in (Kind.MOVED_FROM, Kind.DELETED):
            return self._vanished(path, event)
        moved = self._moving.pop(event.cookie, None) or moved_out.pop(event.cookie, None)
        if event.kind is Kind.MOVED_TO and moved is not None:
            return self._moved(moved, path)
        return self._appeared(path, event.directory)

    def _vanished(self, path: str, event: Event) -> TailedFile | None:
        tailed = self._unbind(path)
        self.copies.gone(path)
        self._problems.pop(path, None)
        if tailed is None:
            return None
        if event.kind is Kind.MOVED_FROM:
            self._moving[event.cookie] = tailed
        elif tailed.path == path:
            self._lose_path(tailed)
        return tailed

    def _lose_path(self, tailed: TailedFile) -> None:
        """One of the file's paths is gone: go on under another one it has, else it has lost its place."""
        if tailed.paths and not tailed.ended:
            self._repath(tailed, tailed.paths[0])
        else:
            self.lose(tailed)

    def _moved(self, tailed: TailedFile, path: str) -> TailedFile:
        """A file got another name; it stays the same file, and a file that had this name loses its place."""
        displaced = self.by_path.get(path)
        if displaced is not None and displaced is not tailed:
            self._unbind(path)
            self._lose_path(displaced)
        self._bind(path, tailed)
        self._repath(tailed, path)
        root = tailed.origin.target.root
        place = self.places.get(tailed.origin.target.id)
        if place is None or not place.selection.matches(beneath(root, path)):
            self.lose(tailed)
        return tailed

    def _appeared(self, path: str, directory: str) -> TailedFile | None:
        """Something was created at, or moved to, a path: if a target wants it, open it at once."""
        for target_id in self._directories.get(directory, ()):
            place = self.places[target_id]
            if not place.selection.matches(beneath(place.origin.target.root, path)):
                continue
            opened = self.open(place.origin, path)
            if opened is not None:
                return self.arrive(place.origin, path, opened)
        return None

    def arrive(self, origin: Origin, path: str, opened: Opened) -> TailedFile | None:
        """A file stands at a path where it did not before: known already, a copy in the making, or new."""
        displaced = self.by_path.get(path)
        known = self._by_identity.get(opened.status.id)
        if known is not None:
            opened.content.close()
            if displaced is not None and displaced is not known:
                self._unbind(path)
                self._lose_path(displaced)
            self._alias(known, path)
            return known
        if displaced is not None:
            self._unbind(path)
            self._lose_path(displaced)
        if self.copies.suspect(origin, path, opened):
            opened.content.close()
            return None
        fresh = self.begin(origin, path, opened)
        if displaced is not None or origin.chain.joins_lines:
            fresh.predecessor = self._predecessor(fresh, displaced)
        return fresh

    def _predecessor(self, fresh: TailedFile, displaced: TailedFile | None) -> TailedFile | None:
        """The file whose place this one took, if a record may run on from there."""
        if not fresh.origin.chain.joins_lines:
            return None
        if displaced is not None:
            return displaced
        return next(
            (
                old
                for old in reversed(self.ended)
                if old.recorded_path == fresh.recorded_path and old.origin is fresh.origin
            ),
            None,
        )

    def _repath(self, tailed: TailedFile, path: str) -> None:
        tailed.path = path
        self._soil(tailed)

    # -- now and then --------------------------------------------------------------------------------------------

    def rescan(self, target_id: str) -> list[TailedFile]:
        """Compare a target's paths with what is known; the files that are new, bigger or lost."""
        place = self.places.get(target_id)
        if place is None:
            return []
        ready: list[TailedFile] = []
        seen: set[str] = set()
        for path in self._scan(place):
            seen.add(path)
            tailed = self._compare(place.origin, path)
            if tailed is not None:
                ready.append(tailed)
        for path, tailed in list(self.by_path.items()):
            if tailed.origin is place.origin and path not in seen and tailed.path == path and not tailed.ended:
                self._unbind(path)
                self._lose_path(tailed)
                ready.append(tailed)
        return ready

    def _compare(self, origin: Origin, path: str) -> TailedFile | None:
        tailed = self.by_path.get(path)
        if tailed is not None:
            try:
                status = os.stat(path)
            except OSError:
                return None
            if status.st_ino == tailed.identity.inode:
                return tailed if status.st_size != tailed.head or len(tailed.cursors) > 1 else None
        elif self.copies.watches(path):
            return self.copies.look(path)
        opened = self.open(origin, path)
        return self.arrive(origin, path, opened) if opened is not None else None

    def due_s(self, now_s: float) -> float:
        """Seconds until `tend` has something to do."""
        due_s = self._rescan_at_s
        if self._save_at_s is not None:
            due_s = min(due_s, self._save_at_s)
        if self.stalled:
            due_s = min(due_s, self._retry_at_s)
        return min(due_s - now_s, self.copies.due_s(now_s))

    def tend(self, now_s: float) -> list[TailedFile]:
        """Save what changed, scan when it is time; the files that may have something to read."""
        if self._save_at_s is not None and now_s >= self._save_at_s:
            self._save(now_s)
        ready = self.copies.tend(now_s)
        if now_s < self._rescan_at_s:
            return ready
        self.rescans += 1
        for target_id in list(self.places):
            ready.extend(self.rescan(target_id))
        ready.extend(self.ended)
        end_s = self._clock.monotonic_s()
        self._rescan_at_s = end_s + max(self._rescan_interval_s, (end_s - now_s) * RESCAN_SHARE)
        return ready

    def _soil(self, tailed: TailedFile) -> None:
        if tailed.row:
            self._dirty[tailed] = None
            if self._save_at_s is None:
                self._save_at_s = self._clock.monotonic_s() + SAVE_S

    def _save(self, now_s: float) -> None:
        try:
            self.checkpoint.update_files([tailed.to_row() for tailed in self._dirty])
        except StateError:
            self._save_at_s = now_s + RETRY_S
            return
        self._dirty.clear()
        self._save_at_s = None


def initial_row(tailed: TailedFile) -> FileRow:
    """A new file's first row; a file that doesn't start at its beginning has its positions from the first moment."""
    positions = {
        lane.name: Position(cursor.offset, cursor.anchor)
        for cursor in tailed.cursors
        if cursor.offset
        for lane in cursor.lanes
    }
    return msgspec.structs.replace(tailed.to_row(), positions=positions)
