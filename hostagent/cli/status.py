"""`hostagent status`: is it well, and if not, what is the matter and what to do.

Shows one answer of the running agent. What is wrong stands first, for this is read at 3 a.m.; numbers follow.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, json_option
from hostagent.errors import EXIT_FAILURE, EXIT_OK
from hostagent.observe.report import AgentReport, NoticeReport, OutputReport, SourceReport


@click.command()
@config_option()
@api_option()
@json_option()
@click.pass_context
def status(ctx: click.Context, config_path: str, address: str | None, as_json: bool) -> None:
    """Show whether the agent is well.

    First what is wrong and what to do, then every output and source. Exit code 1 if it is not healthy or not running.
    """
    from hostagent.cli.client import ask, find_address

    report = ask(find_address(config_path, address), "/status", {}, AgentReport)
    if as_json:
        show.print_json(report)
    else:
        print_status(report)
    ctx.exit(EXIT_OK if report.health.healthy else EXIT_FAILURE)


def print_status(report: AgentReport) -> None:
    """The whole page."""
    word, colour = ("healthy", "green") if report.health.healthy else ("UNHEALTHY", "red")
    if report.health.healthy and not report.health.ready:
        word, colour = "not ready", "yellow"
    host = show.visible(report.host)
    name = f"hostagent {report.version} on {host}, pid {report.pid}, up {show.age(report.uptime_s)}"
    click.echo(f"{click.style(word, fg=colour, bold=True)}  {name}")
    click.echo(click.style(show.visible(f"  {report.config}, state in {report.data_dir}"), dim=True))
    use = f"{show.size(report.rss_bytes)} of memory, {report.cpu_s:.1f} s of CPU, {report.open_fds} open files"
    click.echo(click.style(f"  {use}", dim=True))
    for check in report.health.checks:
        if not check.ok:
            show.trouble(f"{check.name}: {check.reason}", check.hint)
    told = {notice.message: notice.hint for notice in report.notices if _stands_at_output(notice, report.outputs)}
    _print_outputs(report.outputs, told)
    _print_sources(report.sources)
    notices = [notice for notice in report.notices if notice.message not in told]
    if notices:
        show.heading(f"Notices ({len(notices)})")
        for notice in notices:
            show.trouble(f"{notice.subject}: {notice.message}", notice.hint, mark="-", colour="yellow")


def _stands_at_output(notice: NoticeReport, outputs: tuple[OutputReport, ...]) -> bool:
    """Whether an output's last error says the same: read once, it is believed once."""
    return any(output.state != "ok" and notice.message in output.last_error for output in outputs)


def _print_outputs(outputs: tuple[OutputReport, ...], hints: Mapping[str, str]) -> None:
    show.heading("Outputs")
    titles = ("name", "type", "state", "behind>", "oldest>", "in memory>", "spooled>", "delivered>", "dead letters>")
    rows = [
        (
            output.name,
            output.type,
            f"{output.state} for {show.age(output.state_age_s)}",
            show.size(output.behind_bytes),
            show.age(output.lag_s),
            show.size(output.unsent_bytes),
            f"{show.size(output.spooled_bytes if output.spooled_blocks else 0)} of {show.size(output.spool_max_bytes)}",
            f"{show.count(output.delivered_records)} records",
            show.count(output.dead_letters),
        )
        for output in outputs
    ]
    show.table(titles, rows)
    for output in outputs:
        if output.last_error:
            now = output.state != "ok"
            text = f"{output.name}: {output.last_error} ({show.age(output.last_error_age_s)} ago)"
            hint = next((hint for message, hint in hints.items() if now and message in output.last_error), "")
            show.trouble(text, hint, mark="!" if now else "was", colour="red" if now else "yellow")
        if output.dead_letters:
            refused = f"{output.name}: {show.count(output.dead_letters)} records that it refused are kept"
            show.trouble(refused, f"hostagent dead-letters ls {output.name}", mark="-", colour="yellow")


def _print_sources(sources: tuple[SourceReport, ...]) -> None:
    show.heading("Sources")
    titles = ("name", "type", "files>", "open>", "behind>", "oldest>", "records>", "read>", "to")
    rows = [
        (
            source.name,
            source.type,
            show.count(source.files),
            show.count(source.open_files),
            show.size(source.behind_bytes),
            show.age(source.lag_s),
            show.count(source.read_records),
            show.size(source.read_bytes),
            ", ".join(source.outputs),
        )
        for source in sources
    ]
    show.table(titles, rows)
    for source in sources:
        if source.lost_bytes:
            lost = f"{source.name}: {show.size(source.lost_bytes)} lost since the ledger began"
            show.trouble(lost, "hostagent audit --losses", mark="-", colour="yellow")
        if source.files == 0:
            what = "CONTAINER" if source.type == "containers" else "PATH"
            show.trouble(f"{source.name}: no file matches", f"hostagent explain {what}", mark="-", colour="yellow")
        odd = [
            f"{show.count(number)} records {what}"
            for number, what in (
                (source.unparsed, "did not parse"),
                (source.invalid_utf8, "had bytes that are no valid text"),
                (source.dropped, "were dropped by a processor"),
            )
            if number
        ]
        if odd:
            show.trouble(f"{source.name}: {', '.join(odd)}", mark="-", colour="yellow")
