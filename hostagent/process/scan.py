"""A pattern with groups, run over many lines in few calls.

The regex parser's engine room. The quick form of the pattern is tried slice by slice, so that a line it doesn't match
can lead it astray for a slice at most; where its matches don't come out as one for each line, the pattern as it was
written is searched for line by line. After a few such slices nothing else is tried.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, Generic, NamedTuple

from hostagent.process.confine import Confined
from hostagent.process.patterns import Compiled, compile_pattern
from hostagent.process.text import occurrences

SLICE_LENGTH = 16 * 1024
PATIENCE = 4
# From every line of a slice the quick form may run to the slice's end, so a slice of many short lines is not for it.
MOST_LINES = 512
# What `\s` is besides the blank and the line feed.
SPACES = "\t\v\f\r"


class Forms(NamedTuple, Generic[AnyStr]):
    """The forms of a pattern, and what lines end and are blank with."""

    quick: re.Pattern[AnyStr]
    blank_only: re.Pattern[AnyStr]
    line: re.Pattern[AnyStr]
    line_feed: AnyStr
    spaces: tuple[AnyStr, ...]


class Scan(Generic[AnyStr]):
    """Finds the groups `wanted` (numbers, ascending) in every line."""

    def __init__(self, forms: Forms[AnyStr], wanted: list[int]) -> None:
        self._forms: Forms[AnyStr] = forms
        self._groups = forms.quick.groups
        self._wanted = wanted

    def rows(self, lines: AnyStr) -> list[tuple[AnyStr, ...] | None]:
        """The wanted groups of each line, None for a line in which the pattern is not found."""
        quick, blank_only, _, line_feed, spaces = self._forms
        if not any(space in lines for space in spaces):
            quick = blank_only
        rows: list[tuple[AnyStr, ...] | None] = []
        patience = PATIENCE
        start = 0
        while start < len(lines):
            end = lines.find(line_feed, min(start + SLICE_LENGTH, len(lines) - 1)) + 1
            few = lines[start:end]
            count = occurrences(line_feed, few)
            found = quick.findall(few, 0, len(few) - 1) if patience and count <= MOST_LINES else []
            if len(found) == count:
                rows += self._picked(found)
            else:
                patience -= patience > 0 and count <= MOST_LINES
                rows += self._line_by_line(few)
            start = end
        return rows

    def _line_by_line(self, lines: AnyStr) -> list[tuple[AnyStr, ...] | None]:
        found = map(self._forms.line.search, lines[:-1].split(self._forms.line_feed))
        return [None if match is None else self._wanted_of(match.groups(lines[:0])) for match in found]

    def _picked(self, found: list[Any]) -> list[tuple[AnyStr, ...]]:
        """`findall` gives bare groups where a pattern has one, and all groups where only some were asked for."""
        if self._groups == 1:
            return [(row,) for row in found]
        return found if self._groups == len(self._wanted) else [self._wanted_of(row) for row in found]

    def _wanted_of(self, groups: tuple[AnyStr, ...]) -> tuple[AnyStr, ...]:
        return groups if self._groups == len(self._wanted) else tuple([groups[number - 1] for number in self._wanted])


def scans(pattern: Compiled, confined: Confined, wanted: list[int]) -> tuple[Scan[str], Scan[bytes] | None]:
    """A scan for characters, and one for bytes where the pattern can be written with them."""
    quick = compile_pattern(confined.quick, confined.flags)
    blank_only = compile_pattern(confined.blank_only, confined.flags)
    chars = Scan(Forms(quick.chars, blank_only.chars, pattern.chars, "\n", tuple(SPACES)), wanted)
    if quick.octets is None or blank_only.octets is None or pattern.octets is None:
        return chars, None
    spaces = tuple(space.encode() for space in SPACES)
    return chars, Scan(Forms(quick.octets, blank_only.octets, pattern.octets, b"\n", spaces), wanted)
