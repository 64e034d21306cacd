"""What lies beside the checkpoint database and is part of the sum: the blocks in the spools and the dead letters.

Read for the audit from the files alone, while an agent may be writing them: a block that moves on meanwhile is no
trouble, damage and gaps are. It draws no conclusions about bytes; `reckoning` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hostagent.daemon.audit.report import Trouble
from hostagent.state.books import Held
from hostagent.state.letters import letter_boxes, read_entries
from hostagent.state.reckoning import Span
from hostagent.state.spool.reading import EVERYTHING, Bounds, bounds_of, list_blocks, spools, strange_in
from hostagent.state.spool.spooled import Place, directory_name


class _Seen(NamedTuple):
    """Where the blocks of one output's spool begin, and between which places there must be one for every row."""

    blocks: set[Place]
    bounds: Bounds


class Beside(NamedTuple):
    """What lies beside the database: by file and output spooled ranges, bytes in dead letters, their sources.

    `seen` are the spools by the names of their directories.
    """

    spans: dict[tuple[int, str], list[Span]]
    refused: dict[tuple[int, str], list[tuple[Span, int]]]
    seen: dict[str, _Seen]
    sources: dict[tuple[int, str], str]
    troubles: list[Trouble]


def read_beside(data_dir: Path) -> Beside:
    """Read the headers of all spools and dead letters; StateError where one can't be read."""
    found = Beside(defaultdict(list), defaultdict(list), {}, {}, [])
    _spooled(data_dir, found)
    _refused(data_dir, found)
    return found


def missing_blocks(rows: Iterable[Held], beside: Beside) -> Iterator[Trouble]:
    """Blocks that the database has in a spool, and that are not there."""
    missing: dict[str, list[Held]] = defaultdict(list)
    for row in rows:
        name = directory_name(row.output)
        there = beside.seen.get(name, _Seen(set(), EVERYTHING))
        if there.bounds.head <= row.place < there.bounds.synced and row.place not in there.blocks:
            missing[name].append(row)
    for name, gone in missing.items():
        bytes_ = sum(span.end - span.start for row in gone for part in row.parts for span in part.ranges)
        yield _spool_trouble(name, f"{len(gone)} blocks with {bytes_} bytes of log are not there any more")


def _spooled(data_dir: Path, found: Beside) -> None:
    for directory in spools(data_dir):
        synced = bounds_of(directory).synced
        blocks = set()
        for listed in list_blocks(directory):
            blocks.add(listed.place)
            if listed.damage:
                start = listed.place.offset
                where = f"{listed.segment.name}, bytes {start} to {start + listed.bytes}"
                found.troubles.append(_spool_trouble(directory.name, f"{where}: {listed.damage}"))
            if listed.header is None:
                continue
            for part in listed.header.parts:
                for range_ in part.ranges:
                    key = (range_.file, listed.header.output)
                    found.spans[key].append((range_.start, range_.end))
                    found.sources[key] = part.source
        # What was drained while we looked lies before the head now, what was added behind where it was synced before.
        found.seen[directory.name] = _Seen(blocks, Bounds(bounds_of(directory).head, synced))
        for number in strange_in(directory).missing:
            found.troubles.append(_spool_trouble(directory.name, f"segment {number:012d} is gone"))


def _refused(data_dir: Path, found: Beside) -> None:
    """Bytes of the ranges that dead letters came from; of a range that was refused in part, in proportion."""
    for directory in letter_boxes(data_dir):
        for letter in read_entries(directory):
            for part in letter.header.parts:
                for file, start, end in part.ranges:
                    key = (file, letter.header.output)
                    bytes_ = (end - start) * part.refused // max(part.records, 1)
                    found.refused[key].append(((start, end), bytes_))
                    found.sources[key] = part.source


def _spool_trouble(name: str, message: str) -> Trouble:
    hint = "when the agent starts or comes to it, it reads that from the log files again, or ledgers it"
    return Trouble(subject=f"spool {name}", message=message, hint=hint, open=True)
