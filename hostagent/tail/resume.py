"""Where reading goes on: a target's files are put where the checkpoint has them, and others begin.

Runs in the reader's thread, when a target is published, changes or goes. What was rotated or copied meanwhile is found
again; what can't be found goes into the ledger. It reads no lines: the reader does, from there on.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from hostagent.errors import StateError
from hostagent.model import FileId
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import FileRow, Position
from hostagent.tail.ending import Ending
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.identity import ANCHOR_BYTES, anchor_of, identify, same_file
from hostagent.tail.files.known import Arrangement, arrange, from_row
from hostagent.tail.files.lineage import How
from hostagent.tail.files.openfiles import Opened
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import join
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.finding.unseen import Appeared
from hostagent.tail.tailer import PLAIN, TailedFile

log = logging.getLogger(__name__)

LINE_START_BYTES = 64 * 1024
"""How far back from a file's end `start_at: end` looks for the beginning of the last line."""

_GLOB_ESCAPED = re.compile(r"\[([*?[])\]")


def open_target(registry: Registry, places: Places, ending: Ending, copies: Copies, place: Place) -> list[TailedFile]:
    """Take up a target: files that were known go on at their positions, others begin. Returns what may be read."""
    origin = place.origin
    found, links = _open_all(registry, places, place)
    rows = registry.known.claim(origin.target.id)
    origin.served = bool(rows)
    arrangement = arrange(
        rows,
        found,
        in_flight=registry.known.in_flight,
        root=origin.target.root,
        tailers=registry.files.tailers,
        owned=registry.by_identity,
    )
    files = _go_on(registry, place, arrangement, found)
    moved = _follow_moved(registry, ending, place, arrangement, found)
    files += [tailed for _, tailed in moved]
    if rows:
        _set_copies_aside(copies, place, arrangement, found)
    files += _begin(registry, place, arrangement, found, dict(moved), first_time=not rows)
    files += _add_links(registry, place, links)
    for tailed in files:
        real = registry.real_path(tailed)
        if real is not None:
            places.watch_behind(tailed.path, real, place)
    _settle_lost(registry, ending, place, arrangement)
    return files


def _go_on(registry: Registry, place: Place, arrangement: Arrangement, found: dict[str, Opened]) -> list[TailedFile]:
    """Take up the files that are still what they were, under their own path or another one of the target's."""
    files = []
    for path, row in arrangement.same.items():
        tailed = from_row(row, place.origin)
        tailed.path = path
        registry.adopt(tailed, found.pop(path))
        registry.rows.note_outputs(tailed, row.positions)
        files.append(tailed)
    return files


def _follow_moved(
    registry: Registry, ending: Ending, place: Place, arrangement: Arrangement, found: dict[str, Opened]
) -> list[tuple[str, TailedFile]]:
    """Go on in files that were rotated while nobody looked, each with the path it had before."""
    moved = []
    for row, continuation in arrangement.moved:
        tailed = from_row(row, place.origin)
        registry.relocate(tailed, continuation)
        registry.rows.note_outputs(tailed, row.positions)
        displaced = found.pop(tailed.path, None)
        if displaced is not None:
            displaced.content.close()
        if tailed.storage != PLAIN or not place.wants(tailed.path):
            registry.lose(tailed)
        if continuation.how is How.COPIED:
            ending.note_gap(tailed)
        moved.append((row.path, tailed))
    return moved


def _set_copies_aside(copies: Copies, place: Place, arrangement: Arrangement, found: dict[str, Opened]) -> None:
    """A copy may have been begun while nobody looked, and its original be truncated any moment: begin none such yet."""
    for path in [path for path in found if path not in arrangement.generation]:
        if copies.suspect(place.origin, path, found[path]):
            found.pop(path).content.close()


def _begin(
    registry: Registry,
    place: Place,
    arrangement: Arrangement,
    found: dict[str, Opened],
    rotated: dict[str, TailedFile],
    *,
    first_time: bool,
) -> list[TailedFile]:
    """Begin the files that nobody knew. `rotated` are those that went on elsewhere, by the path they had before.

    `first_time` says that the target had no files until now: only then are some of them begun at their end.
    """
    origin = place.origin
    at_end = first_time and origin.policy.start_at == "end" and not registry.known.has_closed(origin.target.id)
    files = []
    for path, opened in found.items():
        tailed = registry.begin(origin, path, opened)
        tailed.generation = arrangement.generation.get(path, tailed.generation)
        if at_end and tailed.acked is None:
            _start_at_end(tailed)
        before = rotated.get(path)
        if before is not None and origin.chain.joins_lines and not tailed.head and _is_next(before, tailed):
            tailed.follow(before)
        files.append(tailed)
    return files


def _add_links(registry: Registry, place: Place, links: dict[str, FileId]) -> list[TailedFile]:
    """Give files that are read already their further paths."""
    files = []
    for path, identity in links.items():
        known_file = registry.by_identity.get(identity)
        if known_file is not None:
            registry.alias(known_file, path, place.origin)
            files.append(known_file)  # what was written while nobody wanted it had its events already
    return files


def _settle_lost(registry: Registry, ending: Ending, place: Place, arrangement: Arrangement) -> None:
    """Write down which files can't be found again; those that may only not be opened keep their place."""
    if not arrangement.lost:
        return
    outputs = [lane.name for lane in place.origin.lanes]
    rewritten = [row for row in arrangement.lost if row.id in arrangement.rewritten]
    gone = [row for row in arrangement.lost if row.id not in arrangement.rewritten]
    refused = [row for row in gone if _still_there(row)]
    _close_lost(registry, ending, rewritten, outputs, LossReason.TRUNCATED)
    _close_lost(registry, ending, [row for row in gone if row not in refused], outputs, LossReason.DELETED)
    for row in refused:
        tailed = from_row(row, place.origin)
        registry.adopt_closed(tailed)
        registry.rows.note_outputs(tailed, row.positions)


def close_vanished(registry: Registry, ending: Ending, source: str, outputs: Sequence[str]) -> None:
    """A source has declared all it has: ledger what it read before, no longer declares, and can't find again."""
    lost = registry.known.take_vanished(source, registry.files.tailers, registry.by_identity)
    if lost:
        _close_lost(registry, ending, lost, outputs, LossReason.DELETED)


def swap_target(registry: Registry, places: Places, place: Place) -> None:
    """A target has changed: its files go on under it, those it wants no more until they are drained.

    A scan finds the new ones.
    """
    old = places.by_id[place.origin.target.id].origin
    places.remove(place.origin.target.id)
    places.put(place)
    place.origin.served = old.served
    for tailed in registry.all_files():
        if tailed.origin is not old:
            continue
        if tailed.ended or place.wants(tailed.path) or not _part_with(registry, places, tailed):
            registry.hand_over(tailed, place.origin)


def drop_target(registry: Registry, places: Places, target_id: str) -> list[Appeared]:
    """A target is gone: its files are drained and closed, but for those that another target wants as well.

    Returns the file that should have been there and was gone before it could be opened, if so.
    """
    place = places.by_id.get(target_id)
    if place is None:
        return []
    places.remove(target_id)
    for tailed in registry.all_files():
        if tailed.origin is place.origin:
            _part_with(registry, places, tailed)
    target = place.origin.target
    if place.origin.served or not target.promised:
        return []
    path = join(target.root, _GLOB_ESCAPED.sub(r"\1", target.paths[0]))
    return [] if path in registry.refused else [Appeared(path, place.origin, 0.0, written=True)]


def _part_with(registry: Registry, places: Places, tailed: TailedFile) -> bool:
    """A file that its target wants no more goes to another one that does; else it is read as far as it is written now.

    Whether it went to another one.
    """
    heir = None if tailed.ended else places.wanting(tailed.path)
    if heir is not None and registry.ensure_open(tailed):
        registry.reassign(tailed, heir.origin)
        return True
    registry.lose(tailed)
    tailed.drop_size = tailed.size() or tailed.head
    return False


def _open_all(registry: Registry, places: Places, place: Place) -> tuple[dict[str, Opened], dict[str, FileId]]:
    """Open what stands at the target's paths, each file once; its further paths are returned with its identity."""
    places.put(place)
    found: dict[str, Opened] = {}
    links: dict[str, FileId] = {}
    identities: set[FileId] = set()
    for path, _, is_link, _ in places.scan(place):
        bound = registry.by_path.get(path)
        if bound is not None and places.follows(bound.origin):
            continue
        opened = registry.open(place.origin, path)
        if opened is None:
            if is_link:
                places.watch_dangling(path, place)
            continue
        if bound is not None and bound.identity != opened.status.id:
            registry.displace(path)  # a target that is gone is still draining it, and nobody saw it being rotated
        if opened.status.id in registry.by_identity or opened.status.id in identities:
            links[path] = opened.status.id
            opened.content.close()
            continue
        identities.add(opened.status.id)
        found[path] = opened
    return found, links


def _start_at_end(tailed: TailedFile) -> None:
    """Put every output at the beginning of the file's last line, so that no half line is delivered."""
    assert tailed.content is not None
    size = identify(tailed.content.fd).size
    start = max(0, size - LINE_START_BYTES)
    data = tailed.content.read(start, size - start)
    offset = start + data.rfind(b"\n") + 1 if b"\n" in data else size
    before = tailed.content.read(max(0, offset - ANCHOR_BYTES), min(offset, ANCHOR_BYTES))
    position = Position(offset, anchor_of(before))
    tailed.place({lane.name: position for lane in tailed.origin.lanes})


def _is_next(old: TailedFile, new: TailedFile) -> bool:
    """Whether a file took the place of one that was rotated, as far as names tell: no other rotation came between."""
    directory, name = os.path.split(new.path)
    try:
        rotated_ns = os.stat(old.path).st_mtime_ns
        with os.scandir(directory) as entries:
            return not any(
                entry.name.startswith(name)
                and entry.path not in (old.path, new.path)
                and entry.stat(follow_symlinks=False).st_mtime_ns > rotated_ns
                for entry in entries
            )
    except OSError:
        return False


def _close_lost(
    registry: Registry, ending: Ending, rows: list[FileRow], outputs: Sequence[str], reason: LossReason
) -> None:
    """Write into the ledger what of these files nobody has, and close their rows."""
    if not rows:
        return
    ending.note_vanished(rows, outputs, reason)
    try:
        registry.rows.mark_gone(rows)
    except StateError as error:
        log.warning("rows of vanished files can't be closed now, the next start does it: %s", error)


def _still_there(row: FileRow) -> bool:
    """Whether the file still stands where it was but may not be read now: it goes on once it may, nothing is lost."""
    try:
        os.close(os.open(row.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        pass
    except OSError:
        return False
    else:
        return False  # what made it lost is not that
    try:
        fd = os.open(row.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return same_file(identify(fd).id, row.identity)
    except OSError:
        return False
    finally:
        os.close(fd)
