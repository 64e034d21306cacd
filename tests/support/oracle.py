"""Compares what was written with what arrived: lost, twice, altered, out of order within a file generation.

It knows nothing of the agent. Writers number their lines per stream without gaps, so "everything below `next_seq`" is
all there is to know about what was written.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from tests.support.arrivals import Arrival
from tests.support.lines import AlteredError, read_line

MISSING, ARRIVED, WRITTEN_OFF = range(3)
_MISSING_RUN = re.compile(b"\0+")


class Findings(msgspec.Struct, frozen=True):
    """What is wrong. Empty lists and zeros: nothing."""

    written: int
    arrived: int
    lost: Mapping[str, list[tuple[int, int]]]
    twice: int
    altered: list[str]
    disordered: list[str]

    @property
    def lost_lines(self) -> int:
        return sum(end - start for ranges in self.lost.values() for start, end in ranges)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.altered or self.disordered)

    def __str__(self) -> str:
        lost = "; ".join(f"{stream} {ranges[:5]}" for stream, ranges in self.lost.items())
        return (
            f"{self.written} written, {self.arrived} arrived, {self.lost_lines} lost [{lost}], {self.twice} twice, "
            f"{len(self.altered)} altered {self.altered[:3]}, {len(self.disordered)} out of order {self.disordered[:3]}"
        )


class Oracle:
    """Takes what arrived, in order."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._last: dict[tuple[str, int], int] = {}
        self.arrived = 0
        self.twice = 0
        self.altered: list[str] = []
        self.disordered: list[str] = []
        self.latest_ns: dict[str, int] = {}

    def take(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            for record in arrival.records():
                self.take_message(record.get("message"))

    def take_message(self, message: object) -> None:
        self.arrived += 1
        try:
            line = read_line(message if isinstance(message, str) else repr(message))
        except AlteredError as error:
            self.altered.append(str(error))
            return
        counts = self._counts[line.stream]
        if line.seq >= len(counts):
            counts.extend(bytes(line.seq + 1 - len(counts)))
        if counts[line.seq] == ARRIVED:
            self.twice += 1
            return
        counts[line.seq] = ARRIVED
        place = (line.stream, line.generation)
        if line.seq < self._last.get(place, -1):
            self.disordered.append(f"{line.stream} generation {line.generation}: {line.seq} after {self._last[place]}")
        self._last[place] = line.seq
        self.latest_ns[line.stream] = line.written_ns

    def has(self, stream: str, numbers: range) -> int:
        """How many of these lines have arrived."""
        return self._counts[stream].count(ARRIVED, numbers.start, numbers.stop)

    def missing(self, next_seqs: Mapping[str, int]) -> dict[str, list[tuple[int, int]]]:
        """Ranges [start, end) of line numbers that have not arrived, per stream."""
        found = {stream: self.never_came(stream, 0, next_seq) for stream, next_seq in next_seqs.items()}
        return {stream: ranges for stream, ranges in found.items() if ranges}

    def newly_missing(self, next_seqs: Mapping[str, int]) -> dict[str, list[tuple[int, int]]]:
        """The same without what was written off before."""
        found = {
            stream: _holes(bytes(self._counts[stream][:next_seq]).ljust(next_seq, b"\0"))
            for stream, next_seq in next_seqs.items()
        }
        return {stream: ranges for stream, ranges in found.items() if ranges}

    def never_came(self, stream: str, first: int, last: int) -> list[tuple[int, int]]:
        """Of the lines [first, last) those that have not arrived."""
        counts = self._counts[stream]
        marks = bytes(counts[first:last]).replace(bytes([WRITTEN_OFF]), bytes([MISSING]))
        return [(first + start, first + end) for start, end in _holes(marks.ljust(last - first, b"\0"))]

    def complete(self, next_seqs: Mapping[str, int]) -> bool:
        """Whether nothing is missing but what was written off."""
        return all(
            len(self._counts[stream]) >= next_seq and not self._counts[stream].count(MISSING, 0, next_seq)
            for stream, next_seq in next_seqs.items()
        )

    def write_off(self, lost: Mapping[str, list[tuple[int, int]]]) -> None:
        """Wait for these no longer; they still count as lost unless they arrive after all."""
        for stream, ranges in lost.items():
            counts = self._counts[stream]
            for start, end in ranges:
                counts.extend(bytes(max(0, end - len(counts))))
                counts[start:end] = bytes([WRITTEN_OFF]) * (end - start)

    def findings(self, next_seqs: Mapping[str, int]) -> Findings:
        return Findings(
            written=sum(next_seqs.values()),
            arrived=self.arrived,
            lost=self.missing(next_seqs),
            twice=self.twice,
            altered=self.altered,
            disordered=self.disordered,
        )


def _holes(marks: bytes) -> list[tuple[int, int]]:
    """Runs of what is missing."""
    return [run.span() for run in _MISSING_RUN.finditer(marks)]
