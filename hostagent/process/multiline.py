"""Multiline: puts lines that belong together into one record, such as a stack trace under its first line.

Runs after framing. Over a raw chunk it is one pass of a pattern that finds the line breaks between two records; what
belongs together then stays one buffer with a rare byte between records. Container streams are joined line by line, each
stream for itself. The last group stays in the file until a line shows that it has ended.
"""

from __future__ import annotations

from hostagent.config.model import MultilineConfig
from hostagent.hookspecs import Framed
from hostagent.model import Batch, Text
from hostagent.process.confine import Confined, confine
from hostagent.process.grouping import Grouping
from hostagent.process.patterns import Compiled, compile_pattern, replace
from hostagent.process.text import absent_byte, is_lines

_ONE_COLUMN = ("message",)


class Multiline:
    """Groups by the patterns of one configuration."""

    def __init__(self, config: MultilineConfig) -> None:
        self._max_bytes = config.max_bytes
        self._grouping = Grouping(config)
        self._breaks = _breaks_between_records(config)
        self.window_bytes = self._grouping.window_bytes

    def group(self, framed: Framed, data: bytes, *, final: bool) -> Framed:
        """Join the lines of each record; with `final` the last records have ended, too."""
        joined = self._in_one_pass(framed, data, final=final)
        return joined if joined is not None else self._grouping.group(framed, data, final=final)

    def _in_one_pass(self, framed: Framed, data: bytes, *, final: bool) -> Framed | None:
        """Plain lines in one buffer; None when it takes a look at every line."""
        if self._breaks is None or len(framed.batches) != 1:
            return None
        batch = framed.batches[0]
        text = batch.text
        if text is None or not is_lines(text):
            return None
        between = absent_byte(text.data)
        if between is None:
            return None
        joined = replace(self._breaks, text.data, between)
        if len(joined) > self._max_bytes and max(map(len, joined[:-1].split(between))) > self._max_bytes:
            return None
        if final:
            ended, consumed = joined[:-1] + between, framed.consumed
        else:
            end = joined.rfind(between) + 1
            if not end:
                return Framed([], 0)
            ended, consumed = joined[:end], _start_of_last(joined.count(b"\n", end), framed, data)
        records = Text(_ONE_COLUMN, ended, (between,))
        return Framed([Batch(rows=-1, constants=batch.constants, text=records)], consumed)


def _start_of_last(lines: int, framed: Framed, data: bytes) -> int:
    """Where in the file's own bytes the last so many lines begin."""
    if framed.starts is not None:
        return framed.starts[-lines]
    position = framed.consumed
    for _ in range(lines):
        position = data.rfind(b"\n", 0, position - 1) + 1
    return position


def _breaks_between_records(config: MultilineConfig) -> Compiled | None:
    """A pattern for the line breaks before a record's first line; None when lines must be looked at one by one."""
    if config.end is not None:
        return None
    wanted: list[tuple[str, str | None]] = [("=", config.start), ("!", config.continue_)]
    looks: list[tuple[str, Confined]] = []
    for look, source in wanted:
        if source is None:
            continue
        confined = confine(source)
        if confined is None:
            return None
        looks.append((look if not config.negate else {"=": "!", "!": "="}[look], confined))
    if len({confined.flags for _, confined in looks}) != 1:
        return None
    found = "|".join(f"(?{look}{confined.each_line})" for look, confined in looks)
    return compile_pattern(rf"\n(?:{found})(?!\Z)", looks[0][1].flags)
