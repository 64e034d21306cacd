"""Joins lines into records one by one, each stream of a container for itself.

The general road of multiline. The groups of two streams lie across each other in the file, and nothing may be kept
between two reads: the file is taken up to a place where no group lies across, and all that lie before it have ended. A
group ends with the next first line of its stream, or when its stream has been silent for a while, measured in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import accumulate, groupby
from typing import NamedTuple

from hostagent.config.model import MultilineConfig
from hostagent.hookspecs import Framed
from hostagent.model import Batch
from hostagent.process.patterns import compile_pattern, search
from hostagent.process.text import cells_of, rows_of

# A stream that wrote nothing into the last so many bytes of the file has finished its group.
SILENCE_BYTES = 64 * 1024


class Line(NamedTuple):
    """One framed record; `text` None means that it stands alone. `start`: where reading must begin to get it."""

    batch: Batch
    names: tuple[str, ...]
    values: tuple[bytes, ...]
    text: bytes | None
    stream: Hashable
    start: int


class Group:
    """Lines of one stream that make one record; `first` and `last` are numbers of lines in the chunk."""

    __slots__ = ("ended", "first", "last", "lines", "size_bytes")

    def __init__(self, number: int, line: Line) -> None:
        self.first = self.last = number
        self.lines = [line]
        self.size_bytes = len(line.text or b"")
        self.ended = False

    def add(self, number: int, line: Line) -> None:
        self.last = number
        self.lines.append(line)
        self.size_bytes += 1 + len(line.text or b"")

    def row(self) -> tuple[bytes, ...]:
        """The first line's values, with the text of all lines as the message."""
        first = self.lines[0]
        if len(self.lines) == 1:
            return first.values
        message = b"\n".join([line.text or b"" for line in self.lines])
        return tuple(
            message if name == "message" else value for name, value in zip(first.names, first.values, strict=True)
        )


class Grouping:
    """Groups by the patterns of one configuration."""

    def __init__(self, config: MultilineConfig) -> None:
        self._start = _test(config.start, negate=config.negate)
        self._continue = _test(config.continue_, negate=config.negate)
        self._end = _test(config.end, negate=config.negate)
        self._max_bytes = config.max_bytes
        self.window_bytes = 2 * (config.max_bytes + SILENCE_BYTES)

    def group(self, framed: Framed, data: bytes, *, final: bool) -> Framed:
        """Join the lines of each record. What spans more than the window is taken as if the file ended there."""
        lines = list(_lines(framed, data))
        groups = self._groups(lines)
        taken = len(groups) if final else _settled(groups, lines)
        if not taken and framed.consumed >= self.window_bytes:
            taken = len(groups)
        consumed = framed.consumed if taken == len(groups) else lines[groups[taken].first].start
        return Framed(list(_batches(groups[:taken])), consumed)

    def _groups(self, lines: list[Line]) -> list[Group]:
        """All groups in the order of their first lines."""
        groups: list[Group] = []
        growing: dict[Hashable, Group] = {}
        for number, line in enumerate(lines):
            if len(growing) > 1:
                for stream, other in list(growing.items()):
                    if line.start - lines[other.last].start > SILENCE_BYTES:
                        other.ended = True
                        del growing[stream]
            group = growing.get(line.stream)
            if group is not None and self._continues(group, line):
                group.add(number, line)
            else:
                if group is not None:
                    group.ended = True
                group = growing[line.stream] = Group(number, line)
                groups.append(group)
            if line.text is None or (self._end is not None and self._end(line.text)):
                group.ended = True
                del growing[line.stream]
        return groups

    def _continues(self, group: Group, line: Line) -> bool:
        if line.text is None or group.size_bytes + 1 + len(line.text) > self._max_bytes:
            return False
        if self._start is not None and self._start(line.text):
            return False
        return self._continue is None or self._continue(line.text)


def _test(source: str | None, *, negate: bool) -> Callable[[bytes], bool] | None:
    if source is None:
        return None
    pattern = compile_pattern(source)
    return lambda text: (search(pattern, text) is None) == negate


def _lines(framed: Framed, data: bytes) -> Iterator[Line]:
    starts = framed.starts
    if starts is None:
        starts = list(accumulate((len(line) + 1 for line in data[: framed.consumed].split(b"\n")), initial=0))
    number = 0
    for batch in framed.batches:
        names, rows = rows_of(batch)
        at = names.index("message") if "message" in names and not batch.constants.get("partial") else None
        stream_at = names.index("stream") if "stream" in names else None
        for values in rows:
            stream = values[stream_at] if stream_at is not None else None
            yield Line(batch, names, values, values[at] if at is not None else None, stream, starts[number])
            number += 1


def _settled(groups: list[Group], lines: list[Line]) -> int:
    """How many groups lie before a place in the file that no group lies across; all of them must have ended."""
    settled = 0
    last = -1
    for index, group in enumerate(groups):
        if group.first > last and index and lines[group.first].start > lines[group.first - 1].start:
            settled = index
        if not group.ended:
            return settled
        last = max(last, group.last)
    return len(groups)


def _batches(groups: list[Group]) -> Iterator[Batch]:
    for _, run in groupby(groups, key=lambda group: id(group.lines[0].batch)):
        rows = [(group.lines[0], group.row()) for group in run]
        first = rows[0][0]
        cells = cells_of(row for _, row in rows)
        yield Batch(rows=len(rows), constants=first.batch.constants, names=first.names, cells=cells)
