"""`hostagent explain PATH`: why a file is collected, or why not.

Asks the running agent, which also knows how far it has got; without one, answers from the configuration alone.
"""

from __future__ import annotations

import os

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import api_option, config_option, json_option
from hostagent.observe.report import ExplainReport


@click.command()
@click.argument("path", type=click.Path())
@config_option()
@api_option()
@json_option()
def explain(path: str, config_path: str, address: str | None, as_json: bool) -> None:
    """Say why PATH is collected, or why not.

    Names the source and pattern that match it, or what rules it out. Works without a running agent, too.
    """
    from hostagent.cli.client import NobodyAnswersError, ask, find_address
    from hostagent.observe.explain import about_file

    path = os.path.abspath(path)
    source_of_answer = "the running agent"
    try:
        report = ask(find_address(config_path, address), "/explain", {"path": path}, ExplainReport)
        report = msgspec.structs.replace(report, steps=(*about_file(path), *report.steps))
    except NobodyAnswersError:
        if address is not None:
            raise
        source_of_answer = f"{config_path} (no agent is running)"
        report = _from_configuration(path, config_path)
    if as_json:
        show.print_json(report)
        return
    word, colour = ("collected", "green") if report.collected else ("not collected", "red")
    verdict = f"{word} by source {report.source}" if report.collected else word
    click.echo(f"{show.visible(report.path)}: {click.style(verdict, fg=colour, bold=True)}")
    for step in report.steps:
        click.echo(f"  - {show.visible(step)}")
    click.echo(click.style(f"  according to {source_of_answer}", dim=True))


def _from_configuration(path: str, config_path: str) -> ExplainReport:
    from hostagent.daemon.wiring import load_checked
    from hostagent.observe.explain import explain as explain_path
    from hostagent.plugins import build_plugin_manager, collect_parts
    from hostagent.tail.paths import compile_selection

    config = load_checked(config_path, collect_parts(build_plugin_manager()))
    return explain_path(path, config, compile_selection)
