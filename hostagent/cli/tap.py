"""`hostagent tap SOURCE`: the records that a source's new lines become, while they are written.

Reads the files itself, beside the agent, which only tells which files they are. Nothing is delivered by it and no
position is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option
from hostagent.errors import HostagentError

if TYPE_CHECKING:
    from hostagent.config.model import Config, SourceConfig
    from hostagent.daemon.tapping import Tap
    from hostagent.observe.report import FileReport

PACE_S = 0.25
LIST_S = 2.0
MAX_FILES = 1000


@click.command()
@click.argument("source")
@config_option()
@api_option()
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="Stop after so many records.")
def tap(*, source: str, config_path: str, address: str | None, count: int | None) -> None:
    """Print records while they are written, until Ctrl-C.

    One JSON object a line, as `test` makes them. The running agent says which files the source has; without one, the
    files that match a source of type `file` now and later.
    """
    import threading

    from hostagent.clock import Clock
    from hostagent.daemon.tapping import Tap
    from hostagent.daemon.wiring import load_checked
    from hostagent.hookspecs import Wiring
    from hostagent.plugins import build_plugin_manager, collect_parts
    from hostagent.process.chain import build_chain

    parts = collect_parts(build_plugin_manager())
    config = load_checked(config_path, parts, to_run=False)
    if source not in config.sources:
        raise click.UsageError(f"there is no source {source!r}; sources are {', '.join(config.sources) or 'none'}")
    clock, never = Clock(), threading.Event()
    chosen = config.sources[source]
    chain = build_chain(chosen, parts, Wiring(source, clock, config.data_dir))
    encoder = parts.encoders["ndjson"].build(parts.encoders["ndjson"].options(), Wiring("tap", clock, config.data_dir))
    tapping = Tap(chain, encoder)
    list_at_s = 0.0
    shown = 0
    try:
        while count is None or shown < count:
            if clock.monotonic_s() >= list_at_s:
                _find(tapping, chosen, config, (config_path, address))
                list_at_s = clock.monotonic_s() + LIST_S
            for payload in tapping.records(clock.wall_ns()):
                lines = payload.splitlines(keepends=True)[: None if count is None else count - shown]
                shown += len(lines)
                show.print_bytes(b"".join(lines))
            clock.wait(never, PACE_S)
    except KeyboardInterrupt:
        return  # how it is meant to end
    finally:
        tapping.close()


def _find(tapping: Tap, source: SourceConfig, config: Config, where: tuple[str, str | None]) -> None:
    """Follow the files that the source has now."""
    import os
    import socket

    from hostagent.config.checks import exclude_of, include_of
    from hostagent.tail.finding.paths import compile_selection, scan

    host = {"host": config.host or socket.gethostname()}
    files = _told(where, source.name)
    if files is not None:
        tapping.keep({(file.device, file.inode) for file in files})
        for file in files:
            tapping.follow(file.path, {**host, **file.tags}, (file.device, file.inode))
        return
    if not include_of(source):
        raise HostagentError(f"no agent is running, and only it knows the files of a source of type {source.type}")
    for found in scan("/", compile_selection(include_of(source), exclude_of(source))):
        tapping.follow(found.path, {**host, "path": os.fsencode(found.path).decode(errors="replace")})


def _told(where: tuple[str, str | None], source: str) -> tuple[FileReport, ...] | None:
    """The source's files according to the running agent; None when none answers."""
    from hostagent.cli.client import NobodyAnswersError, ask, find_address
    from hostagent.observe.report import FilesReport

    config_path, address = where
    try:
        query = {"source": source, "limit": str(MAX_FILES)}
        return ask(find_address(config_path, address), "/files", query, FilesReport).files
    except NobodyAnswersError as error:
        if address is not None or error.forbidden:
            raise
        return None
