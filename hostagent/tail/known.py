"""What the checkpoint knew of a target's files, and which of today's files each row has become.

Asked once per target, when it is first seen. A file is recognised by inode, birth time, fingerprint and anchors, then
by where it can have gone while nobody looked: renamed, copied before a truncate, compressed. Nothing is changed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hostagent.hookspecs import Tailer
from hostagent.model import FileId
from hostagent.state.rows import FileRow, Position
from hostagent.tail.beneath import beneath
from hostagent.tail.identity import anchor_holds, fingerprint, same_file
from hostagent.tail.lineage import Continuation, Lost, find_continuation
from hostagent.tail.openfiles import Opened
from hostagent.tail.tailer import NO_ANCHOR, PLAIN


class Arrangement(NamedTuple):
    """How a target's rows and today's paths belong together.

    `same`: path → the row whose file it still is. `moved`: rows whose content goes on elsewhere. `lost`: rows whose
    content can't be found. `generation`: path → the number of the generation that begins there, where a row's file was
    given new content.
    """

    same: dict[str, FileRow]
    moved: list[tuple[FileRow, Continuation]]
    lost: list[FileRow]
    generation: dict[str, int]


class KnownRows:
    """The checkpoint's rows that no target has claimed yet."""

    def __init__(self, rows: Iterable[FileRow]) -> None:
        self._by_target: dict[str, list[FileRow]] = {}
        for row in rows:
            if row.gone_ns is None:
                self._by_target.setdefault(row.target, []).append(row)

    def claim(self, target_id: str) -> list[FileRow]:
        """The rows of a target; they are handed out once."""
        return self._by_target.pop(target_id, [])


def arrange(
    rows: list[FileRow],
    opened: Mapping[str, Opened],
    *,
    root: str,
    tailers: Mapping[str, Tailer],
    owned: Iterable[FileId],
) -> Arrangement:
    """Find today's file for each row. `opened` is what stands at the target's paths now."""
    by_inode: dict[int, list[str]] = {}
    for path, now in opened.items():
        by_inode.setdefault(now.status.id.inode, []).append(path)
    result = Arrangement({}, [], [], {})
    astray: list[FileRow] = []
    for row in rows:
        path = next((path for path in by_inode.get(row.identity.inode, ()) if _is_file(row, opened[path])), "")
        if path and path not in result.same and _content_holds(row, opened[path]):
            result.same[path] = row
            continue
        if path:
            result.generation[path] = row.generation + 1
        astray.append(row)
    taken = {*owned, *(opened[path].status.id for path in result.same)}
    for row in astray:
        found = find_continuation(_lost(row, root), tailers, owned=taken)
        if found is None:
            result.lost.append(row)
        else:
            taken.add(found.identity)
            result.moved.append((row, found))
    return result


def furthest(positions: Mapping[str, Position]) -> Position | None:
    """The position that is furthest ahead: its anchor says the most about the content."""
    return max(positions.values(), key=lambda position: position.offset, default=None)


def _is_file(row: FileRow, now: Opened) -> bool:
    return row.storage == PLAIN and same_file(row.identity, now.status.id)


def _content_holds(row: FileRow, now: Opened) -> bool:
    """Whether the file still begins and goes on as it did: its fingerprint, and the anchor of every output."""
    if fingerprint(now.content, row.fingerprint) is None:
        return False
    return all(anchor_holds(now.content, position.offset, position.anchor) for position in row.positions.values())


def _lost(row: FileRow, root: str) -> Lost:
    position = furthest(row.positions) or Position(0, NO_ANCHOR)
    directory, name = os.path.split(beneath(root, row.path))
    return Lost(directory, name, row.identity, row.fingerprint, position.offset, position.anchor, root)
