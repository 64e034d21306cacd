"""What the checkpoint knew of a target's files, and which of today's files each row has become.

Asked when a target is first seen, and for every file that seems new later on: a directory may be moved away and back, a
disk unmounted and mounted again. A file is recognised by inode, birth time, fingerprint and anchors, those of blocks in
flight included, then by where it can have gone while nobody looked: renamed, copied before a truncate, compressed.
Nothing is changed here.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hostagent.hookspecs import Tailer
from hostagent.model import FileId
from hostagent.state.rows import FileRow, Position
from hostagent.tail.files.identity import FINGERPRINT_BYTES, anchor_holds, fingerprint, same_file
from hostagent.tail.files.lineage import Continuation, Lost, find_continuation, find_furthest
from hostagent.tail.files.openfiles import Opened
from hostagent.tail.finding.beneath import beneath
from hostagent.tail.origin import Origin
from hostagent.tail.tailer import NO_ANCHOR, PLAIN, TailedFile

MOST_CLOSED = 10_000
"""Rows of files that were closed: so many are remembered, a few hundred bytes each, in case one comes back."""


class Arrangement(NamedTuple):
    """How a target's rows and today's paths belong together.

    `same`: path → the row whose file it still is. `moved`: rows whose content goes on elsewhere. `lost`: rows whose
    content can't be found; `rewritten` are the ids of those whose file is there with other content. `generation`:
    path → the number of the generation that begins there, where a row's file was given new content.
    """

    same: dict[str, FileRow]
    moved: list[tuple[FileRow, Continuation]]
    lost: list[FileRow]
    rewritten: set[int]
    generation: dict[str, int]


class KnownRows:
    """Rows of files that nobody follows now: those no target has claimed yet, and those closed not long ago."""

    def __init__(self, rows: Iterable[FileRow] = (), in_flight: Mapping[int, Position] | None = None) -> None:
        self.in_flight: Mapping[int, Position] = in_flight or {}
        """Row → the furthest end of what the last run had on its way: its file had those bytes then."""
        self._unclaimed: dict[tuple[int, int], FileRow] = {}
        self._by_target: dict[str, list[FileRow]] = {}
        self._closed: OrderedDict[tuple[int, int], FileRow] = OrderedDict()
        for row in rows:
            if row.gone_ns is not None:
                self.remember(row)
            else:
                self._by_target.setdefault(row.target, []).append(row)
                self._unclaimed[_key(row.identity)] = row

    def claim(self, target_id: str) -> list[FileRow]:
        """The rows of a target; they are handed out once."""
        rows = self._by_target.pop(target_id, [])
        for row in rows:
            if self._unclaimed.get(_key(row.identity)) is row:
                del self._unclaimed[_key(row.identity)]
        return rows

    def has_closed(self, target_id: str) -> bool:
        """Whether the target had files that are over."""
        return any(row.target == target_id for row in self._closed.values())

    def take_vanished(self, source: str, tailers: Mapping[str, Tailer], owned: Iterable[FileId]) -> list[FileRow]:
        """Rows of a source that no target has claimed, with no file to be found: nobody will ask for them again.

        Those whose file is still there are left: whoever declares it may only not have answered yet.
        """
        unclaimed = [row for rows in self._by_target.values() for row in rows if row.source == source]
        arrangement = arrange(unclaimed, {}, in_flight=self.in_flight, root="/", tailers=tailers, owned=owned)
        for _, continuation in arrangement.moved:
            continuation.content.close()
        for row in arrangement.lost:
            self._by_target[row.target].remove(row)
            self._unclaimed.pop(_key(row.identity), None)
        return arrangement.lost

    def remember(self, row: FileRow) -> None:
        """A file was closed; should it come back, it goes on here."""
        self._closed[_key(row.identity)] = row
        self._closed.move_to_end(_key(row.identity))
        if len(self._closed) > MOST_CLOSED:
            self._closed.popitem(last=False)

    def recall(self, opened: Opened) -> FileRow | None:
        """The row of a file that seems new and is not: it was closed and has come back, or is another target's.

        It is handed out once. Without a birth time a file of one line may be another one with the same line, and
        losing that would be worse than sending it twice.
        """
        key = _key(opened.status.id)
        for rows in (self._unclaimed, self._closed):
            row = rows.get(key)
            if row is None or row.storage != PLAIN or not row.fingerprint.length or not _content_holds(row, opened):
                continue
            if not row.identity.birth_ns and row.fingerprint.length < FINGERPRINT_BYTES:
                continue
            del rows[key]
            if row.gone_ns is None:
                self._by_target[row.target].remove(row)
            return row
        return None


def _key(identity: FileId) -> tuple[int, int]:
    return identity.inode, identity.birth_ns


def from_row(row: FileRow, origin: Origin) -> TailedFile:
    """The file a row describes, with every output where it stood."""
    tailed = TailedFile(row.path, row.identity, origin, seen_ns=row.seen_ns)
    tailed.row = row.id
    tailed.generation = row.generation
    tailed.fingerprint = row.fingerprint
    tailed.noted_length = row.fingerprint.length
    tags = dict(row.tags)
    tailed.recorded_path = str(tags.pop("path", tailed.recorded_path))
    if tags != tailed.tags:
        tailed.tags = tags
    positions = dict(row.positions)
    last = furthest(positions)
    if last is not None and origin.policy.start_at == "end":
        # An output that is new in the configuration wants what is written from now on, as the source says.
        for lane in origin.lanes:
            positions.setdefault(lane.name, last)
    tailed.place(positions)
    return tailed


def arrange(
    rows: list[FileRow],
    opened: Mapping[str, Opened],
    *,
    in_flight: Mapping[int, Position],
    root: str,
    tailers: Mapping[str, Tailer],
    owned: Iterable[FileId],
) -> Arrangement:
    """Find today's file for each row. `opened` is what stands at the target's paths now.

    A file that holds what was committed and not what was in flight has been copied and truncated, and begins as it did
    before: then there is a copy that holds both. Where there is none, it may have lost its end in a power cut, and is
    still the row's file.
    """
    by_inode: dict[int, list[str]] = {}
    for path, now in opened.items():
        by_inode.setdefault(now.status.id.inode, []).append(path)
    result = Arrangement({}, [], [], set(), {})
    astray: list[FileRow] = []
    doubtful: dict[int, str] = {}
    for row in rows:
        path = next((path for path in by_inode.get(row.identity.inode, ()) if _is_file(row, opened[path])), "")
        if path and path not in result.same and _content_holds(row, opened[path]):
            result.same[path] = row
            if _reaches(opened[path], in_flight.get(row.id)):
                continue
            doubtful[row.id] = path
        elif path:
            result.generation[path] = row.generation + 1
            result.rewritten.add(row.id)
        astray.append(row)
    taken = {*owned, *(opened[path].status.id for path in result.same)}
    for row in astray:
        lost, reached = lost_of(row, root), in_flight.get(row.id)
        if reached is not None and row.id in doubtful:
            found = find_continuation(lost.as_far_as(reached), tailers, owned=taken)
        else:
            found = find_furthest(lost, reached, tailers, owned=taken)
        if found is not None:
            taken.add(found.identity)
            result.moved.append((row, found))
            if row.id in doubtful:
                del result.same[doubtful[row.id]]
                result.generation[doubtful[row.id]] = row.generation + 1
        elif row.id not in doubtful:
            result.lost.append(row)
    return result


def furthest(positions: Mapping[str, Position]) -> Position | None:
    """The position that is furthest ahead: its anchor says the most about the content."""
    return max(positions.values(), key=lambda position: position.offset, default=None)


def _is_file(row: FileRow, now: Opened) -> bool:
    return row.storage == PLAIN and same_file(row.identity, now.status.id)


def _content_holds(row: FileRow, now: Opened) -> bool:
    """Whether the file still begins and goes on as it did: its fingerprint, and the anchor of every output.

    What can't be read now (a disk error) is no proof against it: each later read looks at the anchor again.
    """
    try:
        if fingerprint(now.content, row.fingerprint) is None:
            return False
        return all(anchor_holds(now.content, position.offset, position.anchor) for position in row.positions.values())
    except OSError:
        return True


def _reaches(now: Opened, in_flight: Position | None) -> bool:
    """Whether the file has what was in flight of it. A disk error is no proof against it, as above."""
    try:
        return in_flight is None or anchor_holds(now.content, *in_flight)
    except OSError:
        return True


def lost_of(row: FileRow, root: str) -> Lost:
    """What is known of a row's file, for whoever looks for it."""
    position = furthest(row.positions) or Position(0, NO_ANCHOR)
    directory, name = os.path.split(beneath(root, row.path))
    return Lost(directory, name, row.identity, row.fingerprint, position.offset, position.anchor, root)
