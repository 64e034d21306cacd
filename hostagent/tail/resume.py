"""Where reading goes on: a target's files put where the checkpoint has them, and blocks in flight cut again.

Runs in the reader's thread when a target is first seen, and once for the blocks that were in flight when the agent last
stopped. A block is cut again from those of its parts that are still there, byte for byte, and keeps its id: if the
backend has stored it, none of it may come a second time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.model import Block, FileId, Part, Range
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import FileRow, InflightBlock, InflightPart, Position
from hostagent.tail.ending import Ending
from hostagent.tail.feed import recut
from hostagent.tail.files.identity import ANCHOR_BYTES, anchor_of, identify
from hostagent.tail.files.known import Arrangement, arrange, from_row
from hostagent.tail.files.lineage import How
from hostagent.tail.files.openfiles import Opened
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import OpenError
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.ports import Lane
from hostagent.tail.tailer import Cursor, TailedFile

log = logging.getLogger(__name__)

LINE_START_BYTES = 64 * 1024
"""How far back from a file's end `start_at: end` looks for the beginning of the last line."""


RETRY_S = 1.0


class _GoneError(Exception):
    """A range of a block in flight is not what it was; its text says why."""


def open_target(registry: Registry, places: Places, ending: Ending, place: Place) -> list[TailedFile]:
    """Take up a target: files that were known go on at their positions, others begin. Returns what may be read."""
    origin = place.origin
    found, links = _open_all(registry, places, place)
    rows = registry.known.claim(origin.target.id)
    arrangement = arrange(
        rows, found, root=origin.target.root, tailers=registry.files.tailers, owned=registry.by_identity
    )
    files = []
    for path, row in arrangement.same.items():
        tailed = from_row(row, origin)
        tailed.path = path
        registry.adopt(tailed, found.pop(path))
        registry.rows.note_outputs(tailed, row.positions)
        files.append(tailed)
    moved = _follow_moved(registry, ending, place, arrangement, found)
    files += [tailed for _, tailed in moved]
    rotated = dict(moved)
    at_end = origin.policy.start_at == "end" and not rows
    for path, opened in found.items():
        tailed = registry.begin(origin, path, opened)
        tailed.generation = arrangement.generation.get(path, tailed.generation)
        if at_end and tailed.acked is None:
            _start_at_end(tailed)
        before = rotated.get(path)
        if before is not None and origin.chain.joins_lines and not tailed.head and _is_next(before, tailed):
            tailed.follow(before)
        files.append(tailed)
    for path, identity in links.items():
        known_file = registry.by_identity.get(identity)
        if known_file is not None:
            registry.alias(known_file, path, origin)
            files.append(known_file)  # what was written while nobody wanted it had its events already
    for tailed in files:
        real = registry.real_path(tailed)
        if real is not None:
            places.watch(os.path.dirname(real), place)
    if arrangement.lost:
        outputs = [lane.name for lane in origin.lanes]
        rewritten = [row for row in arrangement.lost if row.id in arrangement.rewritten]
        deleted = [row for row in arrangement.lost if row.id not in arrangement.rewritten]
        _close_lost(registry, ending, rewritten, outputs, LossReason.TRUNCATED)
        _close_lost(registry, ending, deleted, outputs, LossReason.DELETED)
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
        if not place.wants(tailed.path):
            registry.lose(tailed)
        if continuation.how is How.COPIED:
            ending.note_gap(tailed)
        moved.append((row.path, tailed))
    return moved


def close_vanished(registry: Registry, ending: Ending, source: str, outputs: Sequence[str]) -> None:
    """A source has declared everything: ledger what it read before, declares no more and can't be found again."""
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
    for tailed in registry.all_files():
        if tailed.origin is not old:
            continue
        if not place.wants(tailed.path):
            registry.lose(tailed)
        registry.hand_over(tailed, place.origin)


def drop_target(registry: Registry, places: Places, target_id: str) -> None:
    """A target is gone: its files are drained and closed, but for those that another target wants as well."""
    place = places.by_id.get(target_id)
    if place is None:
        return
    places.remove(target_id)
    for tailed in registry.all_files():
        if tailed.origin is not place.origin:
            continue
        heir = None if tailed.ended else places.wanting(tailed.path)
        if heir is not None and registry.ensure_open(tailed):
            registry.reassign(tailed, heir.origin)
        else:
            registry.lose(tailed)
            tailed.drop_size = tailed.size() or tailed.head


def _open_all(registry: Registry, places: Places, place: Place) -> tuple[dict[str, Opened], dict[str, FileId]]:
    """Open what stands at the target's paths. Further paths of one file are told apart: whose links they are."""
    places.put(place)
    found: dict[str, Opened] = {}
    links: dict[str, FileId] = {}
    identities: set[FileId] = set()
    for path, *_ in places.scan(place):
        bound = registry.by_path.get(path)
        if bound is not None:
            if bound.origin.target.id not in places.by_id:
                links[path] = bound.identity  # a target that is gone is still draining it
            continue
        opened = registry.open(place.origin, path)
        if opened is None:
            continue
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
    """Ledger what can't be found again, and close its rows."""
    if not rows:
        return
    ending.note_vanished(rows, outputs, reason)
    try:
        registry.rows.mark_gone(rows)
    except StateError as error:
        log.warning("rows of vanished files can't be closed now, the next start does it: %s", error)


def resume_inflight(
    registry: Registry, checkpoint: Checkpoint, lanes: tuple[Lane, ...], clock: Clock, stop: threading.Event
) -> None:
    """Cut the blocks that were in flight again and queue them, before anything new is read.

    What is no longer claimed must be stored before anything is sent, so this waits for a disk that can't be written;
    a stop ends that with nothing queued.
    """
    cut = [
        (lane, _cut_again(registry, lane, inflight)) for lane in lanes for inflight in checkpoint.inflight(lane.name)
    ]
    narrowed = [again.row for _, again in cut if again.block.indexes is not None]
    while narrowed:
        try:
            checkpoint.narrow_inflight(row for row in narrowed)
            checkpoint.drop_inflight(again.block.id for _, again in cut if not again.block.parts)
            break
        except StateError as error:
            log.warning("blocks that were in flight wait: %s", error)
            if clock.wait(stop, RETRY_S):
                return
    for lane, again in cut:
        if again.block.parts:
            lane.offer_resumed(again.block)


class _Again(NamedTuple):
    """A block cut again, and its row as it is to be from now on."""

    block: Block
    row: InflightBlock


def _cut_again(registry: Registry, lane: Lane, inflight: InflightBlock) -> _Again:
    """The block without the parts that are gone; what those covered is read anew or was ledgered with its file."""
    parts: list[Part] = []
    rows: list[InflightPart] = []
    indexes: list[int] = []
    first = 0
    for row in inflight.parts:
        try:
            part = _part_again(registry, lane, row, inflight.observed_ns)
        except _GoneError as error:
            rows.append(row._replace(ranges=()))
            log.warning(
                "output %s: a part of block %s was in flight and can't be cut again: %s", lane.name, inflight.id, error
            )
        else:
            parts.append(part)
            rows.append(row)
            indexes += range(first, first + part.records)
        first += row.records
    kept = None if len(parts) == len(inflight.parts) else tuple(indexes)
    block = Block(inflight.id, inflight.output, inflight.observed_ns, tuple(parts), kept)
    return _Again(block, msgspec.structs.replace(inflight, parts=tuple(rows)))


def _part_again(registry: Registry, lane: Lane, part: InflightPart, observed_ns: int) -> Part:
    """A part as it was, and the output's cursors behind it."""
    pieces = []
    tailed: TailedFile | None = None
    for span in part.ranges:
        tailed = registry.rows.by_id.get(span.file)
        if tailed is None:
            raise _GoneError(f"file {span.file} is gone")
        cursor = _cursor_of(tailed, lane)
        if cursor is None or cursor.offset != span.start:
            raise _GoneError(f"{tailed.path} does not stand where the part begins")
        pieces.append(_bytes_again(registry, tailed, span))
    if tailed is None:
        raise _GoneError("it has no ranges")
    # Where a record runs across a rotation, the part is the newer file's.
    constants = tailed.record_constants()
    if tailed.signature != part.chain:
        raise _GoneError(f"the configuration of source {part.source} or the tags of {tailed.path} have changed")
    data = b"".join(pieces)
    try:
        payload, records = recut(tailed.origin.chain, lane, constants, data, observed_ns)
    except Exception as error:
        # A plugin has come to fail on them. The file is told of when it is read; the agent must start all the same.
        raise _GoneError(f"{type(error).__name__} while processing {tailed.path}: {error}") from error
    for span in part.ranges:
        _move(registry.rows.by_id[span.file], lane, span)
    return Part(part.ranges, part.chain, part.source, payload, records, raw_bytes=len(data))


def _bytes_again(registry: Registry, tailed: TailedFile, span: Range) -> bytes:
    try:
        if not registry.files.ensure(tailed):
            raise _GoneError(f"{tailed.path} leads to another file")
        assert tailed.content is not None
        lead = min(span.start, ANCHOR_BYTES)
        data = tailed.content.read(span.start - lead, span.end - span.start + lead)
    except (OSError, OpenError) as error:
        raise _GoneError(f"{tailed.path} can't be read: {error}") from error
    if len(data) != span.end - span.start + lead or anchor_of(data[-ANCHOR_BYTES:]) != span.anchor:
        raise _GoneError(f"{tailed.path} has other content")
    return data[lead:]


def _cursor_of(tailed: TailedFile, lane: Lane) -> Cursor | None:
    return next((cursor for cursor in tailed.cursors if lane in cursor.lanes), None)


def _move(tailed: TailedFile, lane: Lane, span: Range) -> None:
    cursor = _cursor_of(tailed, lane)
    assert cursor is not None
    if len(cursor.lanes) > 1:
        cursor = tailed.split(cursor, (lane,))
    cursor.offset, cursor.anchor = span.end, span.anchor
    tailed.merge()
