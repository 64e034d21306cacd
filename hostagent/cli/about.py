"""`hostagent version` and `hostagent plugins`: what is installed here.

`version` imports next to nothing; `plugins` loads what a start would load.
"""

from __future__ import annotations

import platform

import click

from hostagent import __version__
from hostagent.cli.options import json_option


@click.command()
@json_option()
def version(as_json: bool) -> None:
    """Print the version."""
    python = platform.python_version()
    if as_json:
        click.echo(f'{{"version": "{__version__}", "python": "{python}"}}')
    else:
        click.echo(f"hostagent {__version__} (Python {python})")


@click.command()
@json_option()
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List the parts that can be configured.

    Each with the package it comes from. Exit code 1 if a plugin package could not be loaded.
    """
    from hostagent.cli import show
    from hostagent.errors import EXIT_FAILURE, EXIT_OK
    from hostagent.plugins import HOOKS, build_plugin_manager, collect_parts

    parts = collect_parts(build_plugin_manager())
    if as_json:
        show.print_json({"parts": parts.origins, "broken": parts.broken})
    else:
        rows = [(kind, name, package) for kind in HOOKS for name, package in sorted(parts.origins[kind].items())]
        show.table(("kind", "name", "from"), rows)
        for broken in parts.broken:
            show.trouble(f"{broken.name} ({broken.package}) did not load: {broken.reason}", "update or remove it")
    ctx.exit(EXIT_FAILURE if parts.broken else EXIT_OK)
