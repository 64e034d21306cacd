"""A pattern with groups, run over many lines in few calls.

The regex parser's engine room. The quick form of the pattern is tried slice by slice, so that a line it doesn't match
can lead it astray for a slice at most; where its matches don't come out as one for each line, the pattern as it was
written is searched for line by line. After a few such slices nothing else is tried.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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


class Found(NamedTuple, Generic[AnyStr]):
    """What was found in some lines: a table of the groups, for all lines but those in which nothing was (`missed`)."""

    cells: list[AnyStr]
    missed: list[int]


class Scan(Generic[AnyStr]):
    """Finds the groups `wanted` (numbers, ascending) in every line."""

    def __init__(self, forms: Forms[AnyStr], wanted: list[int]) -> None:
        self._forms: Forms[AnyStr] = forms
        self._groups = forms.quick.groups
        self._wanted = wanted

    def find(self, lines: AnyStr) -> Found[AnyStr]:
        """The wanted groups of each line in which the pattern is found."""
        quick, blank_only, _, line_feed, spaces = self._forms
        if not any(space in lines for space in spaces):
            quick = blank_only
        cells: list[AnyStr] = []
        missed: list[int] = []
        patience = PATIENCE
        start = before = 0
        while start < len(lines):
            end = lines.find(line_feed, min(start + SLICE_LENGTH, len(lines) - 1)) + 1
            few = lines[start:end]
            count = occurrences(line_feed, few)
            found = quick.findall(few, 0, len(few) - 1) if patience and count <= MOST_LINES else []
            if len(found) == count:
                self._add(cells, found)
            else:
                patience -= patience > 0 and count <= MOST_LINES
                missed += [before + line for line in self._line_by_line(few, cells)]
            start = end
            before += count
        return Found(cells, missed)

    def _add(self, cells: list[AnyStr], found: list[Any]) -> None:
        """`findall` gives bare groups where a pattern has one, and all groups where only some were asked for."""
        if self._groups == 1:
            cells += found
            return
        if self._groups != len(self._wanted):
            found = [self._wanted_of(groups) for groups in found]
        for groups in found:  # tuples that live no longer than this are no work for the garbage collector
            cells += groups

    def _line_by_line(self, lines: AnyStr, cells: list[AnyStr]) -> list[int]:
        """Add the groups that are found in each line; the numbers of the lines in which none are."""
        missed = []
        for number, line in enumerate(lines[:-1].split(self._forms.line_feed)):
            match = self._forms.line.search(line)
            if match is None:
                missed.append(number)
            else:
                cells += self._wanted_of(match.groups(lines[:0]))
        return missed

    def _wanted_of(self, groups: Sequence[AnyStr]) -> Sequence[AnyStr]:
        return groups if self._groups == len(self._wanted) else [groups[number - 1] for number in self._wanted]


def scans(pattern: Compiled, confined: Confined, wanted: list[int]) -> tuple[Scan[str], Scan[bytes] | None]:
    """A scan for characters, and one for bytes where the pattern can be written with them."""
    quick = compile_pattern(confined.quick, confined.flags)
    blank_only = compile_pattern(confined.blank_only, confined.flags)
    chars = Scan(Forms(quick.chars, blank_only.chars, pattern.chars, "\n", tuple(SPACES)), wanted)
    if quick.octets is None or blank_only.octets is None or pattern.octets is None:
        return chars, None
    spaces = tuple(space.encode() for space in SPACES)
    return chars, Scan(Forms(quick.octets, blank_only.octets, pattern.octets, b"\n", spaces), wanted)
