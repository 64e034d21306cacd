"""`hostagent audit`: where every byte that was written is, and whether one can't be found.

Looks at state and files from outside, beside a running agent or without one; the sum itself is the daemon's `audit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, data_dir_option, find_data_dir, json_option
from hostagent.errors import EXIT_FAILURE, EXIT_OK, HostagentError
from hostagent.observe.report import FileReport, FilesReport

if TYPE_CHECKING:
    from hostagent.daemon.audit.report import AuditReport, LossAudit
    from hostagent.state.reckoning import Account

MAX_FILES = 1_000_000
HEADINGS = ("written>", "delivered>", "spooled>", "dead letters>", "lost>", "skipped>", "waiting>", "unaccounted>")


@click.command()
@config_option()
@data_dir_option()
@api_option()
@json_option()
@click.option("--source", metavar="NAME", help="Only this source.")
@click.option("--files", "each_file", is_flag=True, help="Every file that is not forgotten yet, too.")
@click.option("--losses", is_flag=True, help="Every line of the loss ledger, too, the newest last.")
@click.pass_context
def audit(
    ctx: click.Context,
    *,
    config_path: str,
    data_dir: str | None,
    address: str | None,
    as_json: bool,
    source: str | None,
    each_file: bool,
    losses: bool,
) -> None:
    """Account for every byte.

    For each source and output: bytes written, and where they are now. Exit code 1 if one can't be accounted for.
    """
    from hostagent.clock import Clock
    from hostagent.daemon.audit.audit import audit as do_audit
    from hostagent.hookspecs import Wiring
    from hostagent.plugins import build_plugin_manager, collect_parts

    state = find_data_dir(config_path, data_dir)
    clock = Clock()
    kinds = collect_parts(build_plugin_manager()).tailers
    tailers = {name: kind.build(kind.options(), Wiring(name, clock, state)) for name, kind in kinds.items()}
    report = do_audit(state, tailers, lambda: _held(config_path, address), clock)
    if source is not None:
        report = _only(report, source)
    if as_json:
        report = report if each_file else msgspec.structs.replace(report, files=())
        show.print_json(report if losses else msgspec.structs.replace(report, losses=()))
    else:
        _print(report, each_file=each_file, losses=losses)
    ctx.exit(EXIT_OK if report.balanced else EXIT_FAILURE)


def _held(config_path: str, address: str | None) -> Iterable[FileReport] | None:
    """What a running agent holds; None when none answers."""
    from hostagent.cli.client import ask, find_address

    try:
        found = ask(find_address(config_path, address), "/files", {"limit": str(MAX_FILES)}, FilesReport)
    except HostagentError:
        return None
    return found.files


def _only(report: AuditReport, source: str) -> AuditReport:
    sources = tuple(one for one in report.sources if one.source == source)
    if not sources:
        known = ", ".join(sorted({one.source for one in report.sources})) or "none"
        raise HostagentError(f"nothing is known of a source {source!r} (known: {known})")
    unaccounted = sum(one.account.unaccounted for one in sources)
    files = tuple(one for one in report.files if one.source == source)
    losses = tuple(one for one in report.losses if one.source == source)
    return msgspec.structs.replace(
        report,
        sources=sources,
        files=files,
        losses=losses,
        unaccounted=unaccounted,
        balanced=not unaccounted and not any(trouble.open for trouble in report.troubles),
    )


def _print(report: AuditReport, *, each_file: bool, losses: bool) -> None:
    titles = ("source", "output", "files>", *HEADINGS)
    rows = [(one.source or "-", one.output, show.count(one.files), *_row(one.account)) for one in report.sources]
    show.table(titles, rows)
    for one in report.sources:
        whose = f"{one.source or '-'} to {one.output}"
        lost = ", ".join(f"{reason} {show.count(bytes_)}" for reason, bytes_ in one.reasons.items() if bytes_)
        if lost:
            text = f"{whose}: lost {lost} bytes, --losses says which"
            show.trouble(text, colour="yellow", mark="-")
        if one.unsized_losses:
            seen = f", of at least {show.count(one.account.lost_unsized)} bytes" if one.account.lost_unsized else ""
            text = f"{whose}: {show.count(one.unsized_losses)} losses of unknown size{seen}"
            show.trouble(text, colour="yellow", mark="-")
        if one.account.unaccounted:
            text = f"{whose}: {show.count(one.account.unaccounted)} bytes are unaccounted for"
            show.trouble(
                text, "hostagent audit --files shows in which files; this is a fault of the agent, please report it"
            )
    for trouble in report.troubles:
        colour = "red" if trouble.open else "yellow"
        show.trouble(
            f"{trouble.subject}: {trouble.message}", trouble.hint, mark="!" if trouble.open else "-", colour=colour
        )
    if each_file:
        show.heading("Files")
        titles = ("path", "generation>", "output", *HEADINGS)
        files = [(file.path, str(file.generation), file.output, *_row(file.account)) for file in report.files]
        show.table(titles, files)
    if losses:
        show.heading("Losses")
        show.table(
            ("when", "source", "output", "reason", "from>", "to>", "path"), [_loss_row(one) for one in report.losses]
        )
    word = "every byte is accounted for" if report.balanced else "NOT every byte is accounted for"
    by = "beside the running agent" if report.running else "no agent is running"
    click.echo(f"{click.style(word, fg='green' if report.balanced else 'red', bold=True)} ({by})")


def _loss_row(loss: LossAudit) -> tuple[str, ...]:
    end = "unknown" if loss.end is None else show.count(loss.end)
    where = (show.count(loss.start), end, loss.path)
    return (show.moment(loss.at_ns), loss.source or "-", loss.output or "all", loss.reason, *where)


def _row(account: Account) -> tuple[str, ...]:
    return tuple(
        show.count(number)
        for number in (
            account.written,
            account.delivered,
            account.spooled,
            account.dead_lettered,
            account.lost + account.lost_unsized,
            account.skipped,
            account.waiting,
            account.unaccounted,
        )
    )
