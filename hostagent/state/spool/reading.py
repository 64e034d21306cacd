"""What lies in a spool, for commands that list, print, verify or replay it beside a running agent.

Reads only and locks nothing: a block that is drained meanwhile is simply gone. Takes a spool's directory, where it
shows what still waits, or a single segment file, which may also be one from quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostagent.errors import StateError
from hostagent.state.faults import look_fault
from hostagent.state.segments.frames import Damage, Frame, read_payload
from hostagent.state.segments.marks import Cursor
from hostagent.state.segments.survey import Segment, open_for_reading, scan_segment, segment_at, survey
from hostagent.state.spool.spooled import (
    BLOCK_FRAME,
    SPOOL_DIRECTORY,
    Place,
    SpooledBlock,
    SpoolHeader,
    decode_block,
    decode_header,
)


class ListedBlock(NamedTuple):
    """One place in a segment: a block, or damage. A damaged block whose header reads has both."""

    segment: Path
    place: Place
    bytes: int
    header: SpoolHeader | None
    damage: str


class Bounds(NamedTuple):
    """Between these places of a spool lies what waits in it; behind `synced` may be what is just being written."""

    head: Place
    synced: Place


EVERYTHING = Bounds(Place(0, 0), Place(1 << 62, 0))


class Strange(NamedTuple):
    """What does not belong as it is: segments that are listed and not there, names that are not the agent's."""

    missing: tuple[int, ...]
    foreign: tuple[str, ...]


def spools(data_dir: Path) -> list[Path]:
    """The directories of all outputs that ever spooled."""
    try:
        return sorted(path for path in (data_dir / SPOOL_DIRECTORY).iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise look_fault(data_dir / SPOOL_DIRECTORY, error) from error


def list_blocks(place: Path, *, verify: bool = False) -> Iterator[ListedBlock]:
    """What waits in a spool's directory or lies in a segment, in order; with `verify` payloads are checked, too."""
    try:
        for segment, start, limit in _extents(place):
            for found in scan_segment(segment, start, limit, payloads=verify):
                if isinstance(found, Damage) and not segment.path.exists() and _drained(place, segment):
                    break
                yield _listed(segment, found)
    except OSError as error:
        raise look_fault(place, error) from error


def read_block(listed: ListedBlock) -> SpooledBlock:
    """A listed block with its delivery, exactly as it was spooled; StateError when it is damaged or gone."""
    try:
        segment = segment_at(listed.segment)
        found = next(scan_segment(segment, listed.place.offset, segment.size), None)
        if isinstance(found, Frame) and found.kind == BLOCK_FRAME:
            fd = open_for_reading(segment.path)
            try:
                payload = read_payload(fd, found)
            finally:
                os.close(fd)
            if payload is not None:
                return decode_block(found.header, payload)
    except OSError as error:
        raise look_fault(listed.segment, error) from error
    except msgspec.DecodeError as error:
        raise StateError(
            f"{listed.segment}: the block at byte {listed.place.offset} is of another version: {error}"
        ) from None
    raise StateError(f"{listed.segment}: no sound block at byte {listed.place.offset}")


def strange_in(directory: Path) -> Strange:
    """What is odd about a spool's directory; what a running agent makes or drains while we look is not."""
    try:
        found = survey(directory)
        again = survey(directory) if found.missing else found
    except OSError as error:
        raise look_fault(directory, error) from error
    missing = [number for number in found.missing if number in again.missing]
    return Strange(tuple(missing), (*found.foreign, *(one.path.name for one in found.copies)))


def bounds_of(directory: Path) -> Bounds:
    """What a spool's mark says; everything, when there is none or it is damaged."""
    try:
        mark = Cursor.read(directory)
    except OSError as error:
        raise look_fault(directory, error) from error
    if mark is None:
        return EVERYTHING
    return Bounds(Place(mark.head_segment, mark.head_offset), Place(mark.synced_segment, mark.synced_offset))


def disk_bytes(directory: Path) -> int:
    """What a spool's segments take on disk."""
    try:
        return sum(segment.size for segment in survey(directory).segments)
    except OSError as error:
        raise look_fault(directory, error) from error


def _listed(segment: Segment, found: Frame | Damage) -> ListedBlock:
    offset = found.start if isinstance(found, Damage) else found.offset
    bytes_ = found.end - offset
    if isinstance(found, Damage):
        header, why = found.header, found.why
    elif found.kind == BLOCK_FRAME:
        header, why = found.header, ""
    else:
        header, why = None, "this is no block"
    try:
        known = decode_header(header) if header is not None else None
    except msgspec.DecodeError as error:
        known, why = None, why or f"its header is of another version: {error}"
    return ListedBlock(segment.path, Place(segment.number, offset), bytes_, known, why)


def _drained(place: Path, segment: Segment) -> bool:
    """Whether the agent has removed a segment since we listed it, because all of it was delivered."""
    mark = Cursor.read(place) if place.is_dir() else None
    return mark is not None and mark.head_segment > segment.number


def _extents(place: Path) -> Iterator[tuple[Segment, int, int]]:
    """Which part of which segments to show: not what was drained, nor what is just being written."""
    if not place.is_dir():
        segment = segment_at(place)
        yield segment, 0, segment.size
        return
    found = survey(place)
    for segment in found.segments:
        start, limit = 0, segment.size
        if found.mark is not None:
            if segment.number < found.mark.head_segment:
                continue
            if segment.number == found.mark.head_segment:
                start = found.mark.head_offset
            if segment.number == found.mark.synced_segment:
                limit = found.mark.synced_offset
            elif segment.number > found.mark.synced_segment:
                limit = 0
        yield segment, start, limit
