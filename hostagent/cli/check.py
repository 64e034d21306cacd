"""`hostagent check`: everything that is wrong with a configuration, before anything is started.

Loads it exactly as `run` does. Problems go to stdout here, for they are what was asked for.
"""

from __future__ import annotations

import click

from hostagent.cli import show
from hostagent.cli.options import config_option, json_option
from hostagent.config.model import Config
from hostagent.errors import EXIT_OK, EXIT_USAGE, ConfigError, ConfigProblem
from hostagent.hookspecs import Notice


@click.command()
@config_option()
@json_option()
@click.pass_context
def check(ctx: click.Context, config_path: str, as_json: bool) -> None:
    """Check the configuration, start nothing.

    Prints every mistake with its line and column. Exit code 2 if there is one.
    """
    from hostagent.config.checks import config_notices
    from hostagent.daemon.wiring import load_checked
    from hostagent.plugins import build_plugin_manager, collect_parts

    try:
        parts = collect_parts(build_plugin_manager())
        config = load_checked(config_path, parts)
    except ConfigError as error:
        _tell_problems(config_path, error.problems, as_json)
        ctx.exit(EXIT_USAGE)
    notices = config_notices(config)
    notices += [Notice(f"plugin {one.name}", f"{one.package} did not load: {one.reason}") for one in parts.broken]
    _tell_summary(config_path, config, notices, as_json)
    ctx.exit(EXIT_OK)


def _tell_problems(config_path: str, problems: list[ConfigProblem], as_json: bool) -> None:
    if as_json:
        show.print_json({"valid": False, "config": config_path, "problems": problems})
        return
    for problem in problems:
        click.echo(show.visible_lines(str(problem)))
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    click.echo(click.style(f"{show.visible(config_path)}: {count}", fg="red"))


def _tell_summary(config_path: str, config: Config, notices: list[Notice], as_json: bool) -> None:
    sources = {name: {"type": source.type, "outputs": source.outputs} for name, source in config.sources.items()}
    outputs = {name: {"type": output.type} for name, output in config.outputs.items()}
    if as_json:
        told = [notice._asdict() for notice in notices]
        summary = {"valid": True, "config": config_path, "sources": sources, "outputs": outputs, "notices": told}
        show.print_json(summary)
        return
    click.echo(click.style(f"{show.visible(config_path)}: valid", fg="green"))
    for name, source in config.sources.items():
        click.echo(f"  source {name} ({source.type}) to {', '.join(source.outputs)}")
    for name, output in config.outputs.items():
        click.echo(f"  output {name} ({output.type})")
    for notice in notices:
        show.trouble(f"{notice.subject}: {notice.message}", notice.hint, mark="note", colour="yellow")
