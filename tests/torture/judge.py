"""Says what each fault has cost, to the byte: which lines never came, and whether the ledger knows of each of them.

The ledger is read from the agent's database, never written. Its entries name a row of `files`; the writer says whose
bytes that row describes. Nothing is judged before all is over: a line that comes late is not lost.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.support.generations import uncovered
from tests.support.oracle import Oracle
from tests.support.writer import Writer

_LEDGER = """
    SELECT losses.start, losses.end, losses.reason, files.device, files.inode, files.birth_ns,
    files.fingerprint_length, files.fingerprint FROM losses JOIN files ON files.id = losses.file
"""
# Files that were gone before the agent could open them: it knows their names only, and nothing of what was in them.
_UNSEEN = "SELECT files.id, files.path FROM losses JOIN files ON files.id = losses.file WHERE losses.reason = 'unseen'"
_UNSIZED = -1
_WRAP = 1 << 64


class Tally(msgspec.Struct):
    """What one fault, or several at once, did over all injections.

    `missing` are the lines that had not come when the fault's time was up, `lost` those of them that never came.
    """

    fault: str
    injected: int = 0
    kills: int = 0  # between the faults
    written: int = 0
    missing: int = 0
    lost: int = 0
    unseen: int = 0  # lines of them that lay in files the agent says it never saw
    unaccounted: int = 0  # bytes that never came and that the ledger does not name
    twice: int = 0
    altered: int = 0
    disordered: int = 0
    recovered_s: list[float] = msgspec.field(default_factory=list)
    gaps: list[str] = msgspec.field(default_factory=list)  # what was lost, in words


class _Gap(NamedTuple):
    """Lines [first, last) of a stream that were first missed after this fault."""

    tally: Tally
    stream: str
    first: int
    last: int


class Judge:
    """Compares what was written, what arrived and what the ledger says."""

    def __init__(self, database: Path, oracle: Oracle, writer: Writer, running: Callable[[], bool]) -> None:
        self._database = database
        self._running = running
        self._oracle = oracle
        self._writer = writer
        self._gaps: list[_Gap] = []
        self._ledger: defaultdict[tuple[str, int], set[tuple[int, int | None]]] = defaultdict(set)
        self._reasons: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self._sized: dict[tuple[str, int, int, int], str] = {}
        self._owners: dict[tuple[int, int, int, int, str], tuple[str, int] | None] = {}
        self._seen = (0, 0, 0)
        self._unseen: dict[int, str] = {}
        self._claimed: set[tuple[str, int]] = set()

    def miss(self, tally: Tally, written: Mapping[str, int]) -> None:
        """Lines that are waited for no longer are this fault's."""
        missing = self._oracle.newly_missing(written)
        for stream, ranges in missing.items():
            self._gaps += [_Gap(tally, stream, first, last) for first, last in ranges]
            tally.missing += sum(last - first for first, last in ranges)
        self._oracle.write_off(missing)

    def charge(self, tally: Tally) -> None:
        """What has come twice, altered or out of order since the last call is this fault's."""
        seen = (self._oracle.twice, len(self._oracle.altered), len(self._oracle.disordered))
        twice, altered, disordered = (now - before for now, before in zip(seen, self._seen, strict=True))
        tally.twice += twice
        tally.altered += altered
        tally.disordered += disordered
        self._seen = seen

    def read_ledger(self) -> None:
        """Take over what the ledger says now. What it has said once counts, even if its database is damaged later."""
        with contextlib.suppress(sqlite3.DatabaseError), self._connected() as connection:
            rows = connection.execute(_LEDGER).fetchall()
            self._unseen.update((id_, Path(os.fsdecode(path)).name) for id_, path in connection.execute(_UNSEEN))
            keys = [(row[3] % _WRAP, row[4] % _WRAP, row[5], row[6], bytes(row[7]).hex()) for row in rows]
            unknown = sorted({key for key in keys if self._owners.get(key) is None})
            self._owners.update(zip(unknown, self._writer.whose(unknown), strict=True))
            for (start, end, reason, *_), key in zip(rows, keys, strict=True):
                if (owner := self._owners[key]) is not None:
                    self._ledger[owner].add((start, None if end == _UNSIZED else end))
                    self._reasons[owner].add(reason)
                    if end != _UNSIZED:
                        self._sized[*owner, start, end] = reason

    def knows_of(self, written: Mapping[str, int]) -> bool:
        """Whether the ledger names every byte that has not come and is not written off yet."""
        self.read_ledger()
        missing = self._oracle.newly_missing(written)
        gaps = [(stream, first, last) for stream, ranges in missing.items() for first, last in ranges]
        return not any(
            uncovered(place.start, place.end, self._ledger.get((stream, place.generation), ()))
            for (stream, *_), places in zip(gaps, self._writer.where(gaps), strict=True)
            for place in places
        )

    def judge(self) -> None:
        """Put what never came, and what of it is nowhere in the ledger, to the fault after which it was missed."""
        lost = [
            _Gap(gap.tally, gap.stream, first, last)
            for gap in self._gaps
            for first, last in self._oracle.never_came(gap.stream, gap.first, gap.last)
        ]
        where = self._writer.where([(gap.stream, gap.first, gap.last) for gap in lost])
        for gap, places in zip(lost, where, strict=True):
            gap.tally.lost += gap.last - gap.first
            for place in places:
                owner = (gap.stream, place.generation)
                unknown = uncovered(place.start, place.end, self._ledger.get(owner, ()))
                if unknown and self._was_unseen(owner):
                    unknown = 0
                    gap.tally.unseen += place.last - place.first
                gap.tally.unaccounted += unknown
                gap.tally.gaps.append(
                    f"{gap.stream}, generation {place.generation}, bytes {place.start} to {place.end}, "
                    f"lines {place.first} to {place.last}: {unknown} bytes not in the ledger, "
                    f"which has {', '.join(sorted(self._reasons.get(owner, ()))) or 'nothing'} of that file"
                )

    def _was_unseen(self, owner: tuple[str, int]) -> bool:
        """Whether a file of that name stands in the ledger as never seen; each stands for one generation."""
        if owner not in self._claimed and owner not in self._ledger:
            name = f"{owner[0]}.log"
            found = next((id_ for id_, path in self._unseen.items() if path in {name, "*"}), None)
            if found is not None:
                self._claimed.add(owner)
                if self._unseen[found] == name:
                    del self._unseen[found]
        return owner in self._claimed

    def said_in_vain(self) -> dict[str, int]:
        """How many lines arrived although the ledger gives all their bytes up, by its reason: it must not simply name
        everything.
        """
        found: Counter[str] = Counter()
        places = list(self._sized)
        for (stream, *_), reason, lines in zip(places, self._sized.values(), self._writer.lines(places), strict=True):
            found[reason] += self._oracle.has(stream, lines)
        return {reason: lines for reason, lines in found.items() if lines}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The database beside a running agent; of one that stands still a copy, for its log has to be replayed."""
        if self._running():
            uri = f"{self._database.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
                yield connection
            return
        with tempfile.TemporaryDirectory() as folder:
            for path in self._database.parent.glob(self._database.name + "*"):
                shutil.copyfile(path, Path(folder) / path.name)
            with contextlib.closing(sqlite3.connect(Path(folder) / self._database.name)) as connection:
                yield connection
