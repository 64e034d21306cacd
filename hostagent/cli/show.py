"""Tables, colours and JSON on a terminal: how commands print what they know.

Every text is made visible first, for names of files and errors of backends may hold anything. It decides nothing about
what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from hostagent.cli.streams import print_bytes, visible_lines
from hostagent.config.units import format_duration, format_size
from hostagent.observe.log import visible

__all__ = [
    "age",
    "compact_json",
    "count",
    "heading",
    "moment",
    "print_bytes",
    "print_json",
    "size",
    "table",
    "trouble",
    "visible",
    "visible_lines",
]


# What JSON need not escape and a terminal obeys: DEL, C1 controls, marks that change the direction of text.
_JSON_VISIBLE = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def print_json(value: object) -> None:
    """A value as indented JSON."""
    click.echo(msgspec.json.format(compact_json(value), indent=2))


def compact_json(value: object) -> str:
    """A value as JSON on one line, with control characters escaped."""
    return msgspec.json.encode(value).decode().translate(_JSON_VISIBLE)


def heading(text: str) -> None:
    """The title of a section."""
    click.echo("\n" + click.style(text, bold=True))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under titles; a title that ends with `>` has its column aligned to the right."""
    right = [title.endswith(">") for title in titles]
    shown = [[title.rstrip(">") for title in titles], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(titles))]
    for number, row in enumerate(shown):
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        line = "  " + "  ".join(cells).rstrip()
        click.echo(click.style(line, dim=True) if number == 0 else line)


def trouble(text: str, hint: str = "", *, mark: str = "!", colour: str = "red") -> None:
    """One line about what is wrong, and one about what to do."""
    click.echo(f"  {click.style(mark, fg=colour, bold=True)} {visible(text)}")
    if hint:
        click.echo(f"      {click.style('do:', dim=True)} {visible(hint)}")


def size(size_bytes: int | None) -> str:
    """A size for people, a dash for none."""
    return "-" if size_bytes is None else format_size(size_bytes)


def age(seconds: float | None) -> str:
    """A duration for people, a dash for none."""
    return "-" if seconds is None else format_duration(seconds)


def moment(at_ns: int | None) -> str:
    """A time of the wall clock in UTC, a dash for none."""
    if at_ns is None:
        return "-"
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"
