"""`hostagent explain PATH|CONTAINER`: why a file or a container is collected, or why not.

Asks the running agent, which also knows how far it has got; without one, answers from the configuration alone.
"""

from __future__ import annotations

import os

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, json_option
from hostagent.observe.report import ExplainReport, ThingsReport


@click.command()
@click.argument("path", metavar="PATH|CONTAINER", type=click.Path(readable=False))
@config_option()
@api_option()
@json_option()
def explain(path: str, config_path: str, address: str | None, as_json: bool) -> None:
    """Say why PATH is collected, or why not, or what is collected from CONTAINER.

    Names the source and pattern that match it, or what rules it out. Works without a running agent, too. A container is
    known to a running agent only: by its name, the beginning of its id, its pod's name or NAMESPACE/POD/CONTAINER.
    """
    from hostagent.cli.client import NobodyAnswersError, ask, find_address
    from hostagent.observe.explain import about_file

    if not path.startswith("/") and not os.path.lexists(path):
        things = ask(find_address(config_path, address), "/explain", {"name": path}, ThingsReport)
        if as_json:
            show.print_json(things)
        else:
            _show_things(things)
        return
    path = os.path.abspath(path)
    source_of_answer = "the running agent"
    try:
        report = ask(find_address(config_path, address), "/explain", {"path": path}, ExplainReport)
        report = msgspec.structs.replace(report, steps=(*about_file(path), *report.steps))
    except NobodyAnswersError as error:
        if address is not None:
            raise
        asked = "this user may not ask the agent" if error.forbidden else "no agent is running"
        source_of_answer = f"{config_path} ({asked})"
        report = _from_configuration(path, config_path)
    if as_json:
        show.print_json(report)
        return
    word, colour = _verdict(report.collected)
    verdict = f"{word} by source {report.source}" if report.collected else word
    click.echo(f"{show.visible(report.path)}: {click.style(verdict, fg=colour, bold=True)}")
    for step in report.steps:
        click.echo(f"  - {show.visible(step)}")
    click.echo(click.style(f"  according to {show.visible(source_of_answer)}", dim=True))


def _show_things(things: ThingsReport) -> None:
    for thing in things.found:
        verdict = click.style(*_verdict(thing.collected), bold=True)
        click.echo(f"{show.visible(thing.subject)}: {verdict} by source {show.visible(thing.source)}")
        for step in thing.steps:
            click.echo(f"  - {show.visible(step)}")
        for file in thing.files:
            at = ", ".join(
                f"{one.output} at {one.offset}, {show.size(one.behind_bytes)} behind" for one in file.positions
            )
            click.echo(f"  {show.visible(file.path)}: {file.state}, {show.size(file.size_bytes)}; {at}")
    if not things.found:
        click.echo(f"{show.visible(things.name)}: no container goes by this name, and no file is there")
    click.echo(click.style("  according to the running agent", dim=True))


def _verdict(collected: bool) -> tuple[str, str]:
    return ("collected", "green") if collected else ("not collected", "red")


def _from_configuration(path: str, config_path: str) -> ExplainReport:
    from hostagent.daemon.wiring import load_checked
    from hostagent.observe.explain import explain as explain_path
    from hostagent.plugins import build_plugin_manager, collect_parts
    from hostagent.tail.finding.paths import compile_selection

    config = load_checked(config_path, collect_parts(build_plugin_manager()), to_run=False)
    return explain_path(path, config, compile_selection)
