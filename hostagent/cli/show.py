"""Tables, colours and JSON on a terminal: how commands print what they know.

Every text is made visible first, for names of files and errors of backends may hold anything. It decides nothing about
what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from hostagent.config.units import format_duration, format_size
from hostagent.observe.log import visible

__all__ = ["age", "count", "heading", "print_json", "size", "table", "trouble", "visible", "visible_lines"]


def print_json(value: object) -> None:
    """A value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


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


def visible_lines(text: str) -> str:
    """Text of several lines with everything made visible but the ends of its lines."""
    return "\n".join(visible(line) for line in text.split("\n"))


def size(size_bytes: int | None) -> str:
    """A size for people, a dash for none."""
    return "-" if size_bytes is None else format_size(size_bytes)


def age(seconds: float | None) -> str:
    """A duration for people, a dash for none."""
    return "-" if seconds is None else format_duration(seconds)


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"
