"""`hostagent test`: sample lines through a source's chain, to see the records before any backend does.

Builds the chain exactly as the daemon would and reads one file or stdin. No position is kept and nothing is delivered.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import config_option, json_option
from hostagent.errors import EXIT_OK

if TYPE_CHECKING:
    from hostagent.config.model import Config
    from hostagent.model import Processed

MAX_SAMPLE_BYTES = 64 * 1024 * 1024


@click.command()
@click.argument("file", type=click.Path(exists=True, allow_dash=True, dir_okay=False), default="-")
@config_option()
@click.option(
    "--source",
    metavar="NAME",
    help="The source whose format, multiline, parse and processors apply; may be left out if there is one.",
)
@json_option()
@click.pass_context
def test(ctx: click.Context, file: str, config_path: str, source: str | None, as_json: bool) -> None:
    """Show the records that sample lines become.

    Runs FILE (or stdin) through a source's chain and prints each record as one JSON object a line.
    FILE holds lines as they stand in a log file: for `format: cri` with the runtime's prefix.
    """
    from hostagent.clock import Clock
    from hostagent.daemon.wiring import load_checked
    from hostagent.hookspecs import Wiring
    from hostagent.plugins import build_plugin_manager, collect_parts
    from hostagent.process.chain import build_chain

    parts = collect_parts(build_plugin_manager())
    config = load_checked(config_path, parts, to_run=False)
    chosen = config.sources[_chosen(config, source)]
    clock = Clock()
    chain = build_chain(chosen, parts, Wiring(chosen.name, clock, config.data_dir))
    encoder = parts.encoders["ndjson"].build(parts.encoders["ndjson"].options(), Wiring("test", clock, config.data_dir))
    data = _read(file)
    constants = {"host": config.host or socket.gethostname(), "path": file}
    done = chain.process(data, constants, final=True)
    observed_ns = clock.wall_ns()
    payloads = [encoder.encode(batch, observed_ns).payload for batch in done.batches]
    body = encoder.join(payloads) if payloads else b""
    counts = _counts(data, body, done)
    if as_json:
        records = [msgspec.json.decode(line) for line in body.split(b"\n") if line]
        show.print_json({"records": records, "counts": counts})
    else:
        show.print_bytes(body)
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        click.echo(f"source {chosen.name}: {told}", err=True)
    ctx.exit(EXIT_OK)


def _chosen(config: Config, source: str | None) -> str:
    names = list(config.sources)
    if source is None and len(names) == 1:
        return names[0]
    if source in config.sources:
        return str(source)
    known = f"sources are {', '.join(names) or 'none'}"
    raise click.UsageError(
        f"there is no source {source!r}; {known}" if source else f"name a source with --source; {known}"
    )


def _read(file: str) -> bytes:
    with click.open_file(file, "rb") as stream:
        data: bytes = stream.read(MAX_SAMPLE_BYTES + 1)
    if len(data) > MAX_SAMPLE_BYTES:
        raise click.UsageError(f"a sample of more than {MAX_SAMPLE_BYTES // 1024 // 1024} MiB is too much to show")
    return data


def _counts(data: bytes, body: bytes, done: Processed) -> dict[str, int]:
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    records = body.count(b"\n")
    return {
        "lines": lines,
        "records": records,
        "unparsed": done.unparsed,
        "dropped": done.dropped,
        "invalid_utf8": done.invalid_utf8,
    }
