"""`hostagent files`: every file the agent knows, and how far each output has got in it.

Shows one answer of the running agent; it opens none of the files.
"""

from __future__ import annotations

import click

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, json_option
from hostagent.observe.report import FileReport, FilesReport

MAX_FILES = 1_000_000


@click.command()
@config_option()
@api_option()
@json_option()
@click.option("--source", metavar="NAME", help="Only files of this source.")
@click.option("--behind", is_flag=True, help="Only files with bytes that an output has not acked.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=1000, show_default=True, help="Show so many at most."
)
def files(
    *, config_path: str, address: str | None, as_json: bool, source: str | None, behind: bool, limit: int
) -> None:
    """List the files being read, the furthest behind first."""
    from hostagent.cli.client import ask, find_address

    # All of them: the agent orders by path, and the furthest behind may stand anywhere.
    report = ask(find_address(config_path, address), "/files", {"limit": str(MAX_FILES)}, FilesReport)
    chosen = [file for file in report.files if source in (None, file.source) and (behind_bytes(file) or not behind)]
    chosen.sort(key=lambda file: (-behind_bytes(file), file.path))
    left_out = report.left_out + max(0, len(chosen) - limit)
    if as_json:
        show.print_json(FilesReport(files=tuple(chosen[:limit]), left_out=left_out))
        return
    rows = [
        (
            file.path,
            file.source,
            file.state,
            show.size(file.size_bytes),
            show.size(behind_bytes(file)),
            ", ".join(f"{position.output} at {show.count(position.offset)}" for position in file.positions),
        )
        for file in chosen[:limit]
    ]
    show.table(("path", "source", "state", "size>", "behind>", "positions"), rows)
    if left_out:
        click.echo(f"  and {show.count(left_out)} more (--limit)")


def behind_bytes(file: FileReport) -> int:
    """How far the slowest output is behind in a file."""
    return max((position.behind_bytes for position in file.positions), default=0)
