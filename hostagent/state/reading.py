"""What lies in a spool, for commands that list, print, verify or replay it beside a running agent.

Reads only and locks nothing: a block that is drained meanwhile is simply gone. Takes a spool's directory, where it
shows what still waits, or a single segment file, which may also be one from quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hostagent.errors import StateError
from hostagent.state.faults import os_fault
from hostagent.state.frames import Damage, Frame, read_payload
from hostagent.state.spooled import BLOCK_FRAME, SPOOL_DIRECTORY, SpooledBlock, SpoolHeader, decode_block, decode_header
from hostagent.state.survey import Segment, open_for_reading, scan_segment, segment_at, survey


class ListedBlock(NamedTuple):
    """One place in a segment: a block, or damage. A damaged block whose header reads has both."""

    segment: Path
    offset: int
    bytes: int
    header: SpoolHeader | None
    damage: str


def spools(data_dir: Path) -> list[Path]:
    """The directories of all outputs that ever spooled."""
    try:
        return sorted(path for path in (data_dir / SPOOL_DIRECTORY).iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_fault(data_dir / SPOOL_DIRECTORY, "list it", error) from error


def list_blocks(place: Path, *, verify: bool = False) -> Iterator[ListedBlock]:
    """What waits in a spool's directory or lies in a segment, in order; with `verify` payloads are checked, too."""
    try:
        for segment, start, limit in _extents(place):
            for found in scan_segment(segment, start, limit, payloads=verify):
                header = found.header if isinstance(found, Damage) or found.kind == BLOCK_FRAME else None
                why = found.why if isinstance(found, Damage) else "" if header is not None else "this is no block"
                offset = found.start if isinstance(found, Damage) else found.offset
                known = decode_header(header) if header is not None else None
                yield ListedBlock(segment.path, offset, found.end - offset, known, why)
    except OSError as error:
        raise os_fault(place, "read it", error) from error


def read_block(listed: ListedBlock) -> SpooledBlock:
    """A listed block with its delivery, exactly as it was spooled; StateError when it is damaged or gone."""
    try:
        segment = segment_at(listed.segment)
        found = next(scan_segment(segment, listed.offset, segment.size), None)
        if isinstance(found, Frame) and found.kind == BLOCK_FRAME:
            fd = open_for_reading(segment.path)
            try:
                payload = read_payload(fd, found)
            finally:
                os.close(fd)
            if payload is not None:
                return decode_block(found.header, payload)
    except OSError as error:
        raise os_fault(listed.segment, "read it", error) from error
    raise StateError(f"{listed.segment}: no sound block at byte {listed.offset}")


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
