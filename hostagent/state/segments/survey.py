"""Segment files as anybody may look at them: their names, what a directory of them holds, frames one after the other.

Reads only, so it is safe beside a running agent that appends and removes. SegmentLog builds on it for the one writer;
the command line uses it to list, print and verify.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hostagent.errors import StateError
from hostagent.state.faults import os_fault
from hostagent.state.lock import LOCK_NAME
from hostagent.state.segments import frames
from hostagent.state.segments.frames import Damage, Frame
from hostagent.state.segments.marks import CURSOR_NAME, MANIFEST_NAME, Cursor, Manifest, Mark

_NAME = re.compile(r"(\d{12})-([0-9a-f]{16})\.seg")


class Segment:
    """One file: its frames lie in [0, size), even if the file has become shorter than that.

    `damage` says what was first found wrong with it, and is empty as long as nothing was.
    """

    __slots__ = ("damage", "marker", "number", "path", "size")

    def __init__(self, path: Path, number: int, marker: bytes, size: int = 0) -> None:
        self.path = path
        self.number = number
        self.marker = marker
        self.size = size
        self.damage = ""


class Survey(NamedTuple):
    """What a look at the directory found: segments in order, those listed but missing, names that are not ours.

    Of those that are missing it says how long they were, 0 where that isn't known. `copies` have the number or the
    marker of one of the segments.
    """

    segments: list[Segment]
    missing: dict[int, int]
    foreign: list[str]
    mark: Mark | None
    copies: list[Segment]


def number_of(name: str) -> int:
    """The number that a file's name takes, 0 if it is no segment's; it need not be a segment for all that."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match is not None else 0


def segment_at(path: Path) -> Segment:
    """A segment by its file, which may carry anything before its name (quarantine puts a time there)."""
    match = re.search(_NAME.pattern + "$", path.name)
    if match is None:
        raise StateError(f"{path}: this is not the name of a segment (NUMBER-MARKER.seg)")
    try:
        return Segment(path, int(match[1]), bytes.fromhex(match[2]), path.stat().st_size)
    except OSError as error:
        raise os_fault(path, "read it", error) from error


def survey(directory: Path) -> Survey:
    """Look at a directory of segments without changing it; safe beside a running agent."""
    segments, foreign = [], []
    for name in sorted(os.listdir(directory)):
        if _NAME.fullmatch(name) and stat.S_ISREG(_mode_of(directory / name)):
            with contextlib.suppress(StateError):  # it may be drained and removed while we look
                segments.append(segment_at(directory / name))
        elif name not in {LOCK_NAME, CURSOR_NAME, MANIFEST_NAME}:
            foreign.append(name)
    mark = Cursor.read(directory)
    listed = Manifest.read(directory)
    copies = _copies(segments, listed)
    segments = sorted((one for one in segments if one not in copies), key=lambda one: one.number)
    for segment in segments:
        synced = mark.synced_offset if mark is not None and mark.synced_segment == segment.number else 0
        # A file that became shorter than it was: the rest is found damaged when it is read.
        segment.size = max(segment.size, listed.pop(segment.number, 0), synced)
    # Below the head everything was drained: only its removal from the list may not have happened yet.
    missing = {number: size for number, size in listed.items() if mark is None or number >= mark.head_segment}
    if mark is not None and mark.synced_segment in missing:
        missing[mark.synced_segment] = max(missing[mark.synced_segment], mark.synced_offset)
    return Survey(segments, missing, foreign, mark, copies)


def _copies(segments: Sequence[Segment], listed: Mapping[int, int]) -> list[Segment]:
    """Segments whose marker or number another one has: somebody copied or renamed a file."""
    markers = Counter(segment.marker for segment in segments)
    numbers = Counter(segment.number for segment in segments)

    def doubt(one: Segment) -> tuple[bool, ...]:
        size = listed.get(one.number, -1)
        return markers[one.marker] > 1, size < 0, numbers[one.number] > 1, size not in {0, one.size}

    copies: list[Segment] = []
    taken: set[bytes | int] = set()
    for one in sorted(segments, key=doubt):
        if one.marker in taken or one.number in taken:
            copies.append(one)
        else:
            taken |= {one.marker, one.number}
    return copies


def _mode_of(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def scan_segment(segment: Segment, start: int, limit: int, *, payloads: bool = False) -> Iterator[Frame | Damage]:
    """Frames and damage in a part of a segment's file; a file that is gone is damage from there on."""
    if start >= limit:
        return
    try:
        fd = open_for_reading(segment.path)
    except FileNotFoundError:
        yield Damage(start, limit, "the file is gone")
        return
    try:
        yield from frames.scan(fd, start, limit, segment.marker, payloads=payloads)
    finally:
        os.close(fd)


def open_for_reading(path: Path) -> int:
    """A descriptor that can't write."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
