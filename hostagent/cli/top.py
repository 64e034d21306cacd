"""`hostagent top`: what goes through the agent right now, source by source and output by output.

Asks the running agent again and again and shows the differences; the agent does nothing it would not do for `status`.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, json_option
from hostagent.config.listen import TcpAddress, UnixAddress
from hostagent.observe.report import AgentReport, OutputReport, SourceReport

CLEAR = "\x1b[H\x1b[2J"


class SourceRate(msgspec.Struct, frozen=True):
    """One source since the last look; rates are per second."""

    name: str
    bytes_per_s: float
    records_per_s: float
    files: int
    behind_bytes: int
    lag_s: float | None


class OutputRate(msgspec.Struct, frozen=True):
    """One output since the last look; `bytes_per_s` are bytes of log."""

    name: str
    state: str
    bytes_per_s: float
    records_per_s: float
    retries_per_s: float
    behind_bytes: int
    spooled_bytes: int
    lag_s: float | None


class Rates(msgspec.Struct, frozen=True):
    """One look."""

    seconds: float
    cpu_share: float
    rss_bytes: int
    sources: tuple[SourceRate, ...]
    outputs: tuple[OutputRate, ...]


@click.command()
@config_option()
@api_option()
@json_option()
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="Stop after so many looks.")
def top(*, config_path: str, address: str | None, as_json: bool, interval_s: float, count: int | None) -> None:
    """Show live rates until Ctrl-C.

    With --json one object a line for each look.
    """
    from hostagent.cli.client import find_address

    where = find_address(config_path, address)
    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        _look(where, interval_s, count, as_json=as_json)


def _look(where: UnixAddress | TcpAddress, interval_s: float, count: int | None, *, as_json: bool) -> None:
    import threading

    from hostagent.cli.client import ask
    from hostagent.clock import Clock

    clock, never = Clock(), threading.Event()
    before, before_s = ask(where, "/status", {}, AgentReport), clock.monotonic_s()
    for _ in itertools.count() if count is None else range(count):
        clock.wait(never, interval_s)
        now, now_s = ask(where, "/status", {}, AgentReport), clock.monotonic_s()
        if now.pid != before.pid:
            before, before_s = now, now_s  # another agent: its counters begin anew
            continue
        rates = rates_between(before, now, now_s - before_s)
        before, before_s = now, now_s
        if as_json:
            click.echo(show.compact_json(rates))
        else:
            _print(now, rates)


def rates_between(before: AgentReport, now: AgentReport, seconds: float) -> Rates:
    """What happened between two answers of one agent."""
    sources: Mapping[str, SourceReport] = {source.name: source for source in before.sources}
    outputs: Mapping[str, OutputReport] = {output.name: output for output in before.outputs}
    return Rates(
        seconds,
        (now.cpu_s - before.cpu_s) / seconds,
        now.rss_bytes,
        tuple(_source(sources.get(one.name), one, seconds) for one in now.sources),
        tuple(_output(outputs.get(one.name), one, seconds) for one in now.outputs),
    )


def _source(before: SourceReport | None, now: SourceReport, seconds: float) -> SourceRate:
    read_bytes = now.read_bytes - (before.read_bytes if before else 0)
    records = now.read_records - (before.read_records if before else 0)
    return SourceRate(now.name, read_bytes / seconds, records / seconds, now.files, now.behind_bytes, now.lag_s)


def _output(before: OutputReport | None, now: OutputReport, seconds: float) -> OutputRate:
    # An output whose configuration has changed is built anew and counts from 0.
    if before is None or before.delivered_records > now.delivered_records:
        before = msgspec.structs.replace(now, delivered_bytes=0, delivered_records=0, retries=0)
    return OutputRate(
        now.name,
        now.state,
        (now.delivered_bytes - before.delivered_bytes) / seconds,
        (now.delivered_records - before.delivered_records) / seconds,
        (now.retries - before.retries) / seconds,
        now.behind_bytes,
        now.spooled_bytes,
        now.lag_s,
    )


def _print(report: AgentReport, rates: Rates) -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        click.echo(CLEAR, nl=False)
    word = "healthy" if report.health.healthy else "UNHEALTHY, see `hostagent status`"
    host = show.visible(report.host)
    click.echo(f"{host}: {word}, {rates.cpu_share:.0%} of one CPU, {show.size(rates.rss_bytes)} of memory")
    show.heading("Sources")
    show.table(
        ("name", "bytes/s>", "records/s>", "files>", "behind>", "oldest>"), [_source_row(one) for one in rates.sources]
    )
    show.heading("Outputs")
    titles = ("name", "state", "bytes/s>", "records/s>", "retries/s>", "behind>", "spooled>", "oldest>")
    show.table(titles, [_output_row(one) for one in rates.outputs])


def _source_row(one: SourceRate) -> Sequence[str]:
    return (
        one.name,
        show.size(int(one.bytes_per_s)),
        f"{one.records_per_s:,.0f}",
        show.count(one.files),
        show.size(one.behind_bytes),
        show.age(one.lag_s),
    )


def _output_row(one: OutputRate) -> Sequence[str]:
    return (
        one.name,
        one.state,
        show.size(int(one.bytes_per_s)),
        f"{one.records_per_s:,.0f}",
        f"{one.retries_per_s:,.1f}",
        show.size(one.behind_bytes),
        show.size(one.spooled_bytes),
        show.age(one.lag_s),
    )
