"""What a person types: one small module per group of commands.

Stands above the daemon and owns words, exit codes and printing. Heavy imports stay inside the command that needs
them, so that `hostagent status` costs little; nothing here writes to a log file, nor to the state more
than requests to the agent.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from hostagent.cli.options import JSON_WANTED
from hostagent.cli.streams import keep_descriptors, unwritable_stdout, visible_lines
from hostagent.errors import EXIT_FAILURE, EXIT_USAGE, ConfigError, HostagentError

# Command → module of this package that defines a click command of that name (with `_` for `-`).
COMMANDS = {
    "run": "run",
    "check": "check",
    "status": "status",
    "files": "files",
    "explain": "explain",
    "top": "top",
    "tap": "tap",
    "audit": "audit",
    "spool": "spool",
    "dead-letters": "letters",
    "test": "samples",
    "plugins": "about",
    "version": "about",
}


class Commands(click.Group):
    """The built-in commands, each imported when it is asked for, and those that plugin packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._add_plugins()
        return [*COMMANDS, *sorted(set(self.commands) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"hostagent.cli.{COMMANDS[cmd_name]}")
            command: click.Command = getattr(module, cmd_name.replace("-", "_"))
            return command
        self._add_plugins()
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            from hostagent.config.words import unknown

            ctx.fail(f"there is no command {name!r}: {unknown(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def _add_plugins(self) -> None:
        """Ask the plugins for their commands; only done when a command is none of ours, for loading them costs time."""
        from hostagent.plugins import add_commands, build_plugin_manager

        for broken in add_commands(build_plugin_manager(), self):
            click.echo(f"plugin {broken.name} ({broken.package}) adds no command: {broken.reason}", err=True)

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as click has it
        keep_descriptors()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401 - as click has it
        with _errors_told({}):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        with _errors_told(ctx.meta):
            return super().invoke(ctx)


@contextmanager
def _errors_told(meta: Mapping[str, Any]) -> Iterator[None]:
    """Errors as words on stderr and an exit code, and as JSON where that is wanted; names in them may hold anything."""
    try:
        yield
    except click.UsageError as error:
        # A shell's `*` puts names of files among the arguments.
        raise click.UsageError(visible_lines(error.format_message()), error.ctx) from error
    except ConfigError as error:
        for problem in error.problems:
            click.echo(visible_lines(str(problem)), err=True)
        count = len(error.problems)
        told = f"{count} problem{'s' if count != 1 else ''} in the configuration; nothing was started"
        click.echo(told, err=True)
        _tell_as_json(meta, {"error": told, "problems": error.problems})
        raise click.exceptions.Exit(EXIT_USAGE) from error
    except HostagentError as error:
        click.echo(visible_lines(f"hostagent: {error}"), err=True)
        _tell_as_json(meta, {"error": str(error)})
        raise click.exceptions.Exit(EXIT_FAILURE) from error
    except OSError as error:
        unwritable = unwritable_stdout(error)
        if unwritable is None:
            raise
        click.echo(f"hostagent: {unwritable}", err=True)
        raise click.exceptions.Exit(EXIT_FAILURE) from error


def _tell_as_json(meta: Mapping[str, Any], answer: object) -> None:
    """What a program reads in the place of the answer it asked for."""
    if meta.get(JSON_WANTED):
        from hostagent.cli.show import print_json

        with suppress(OSError):  # what is wrong has been told on stderr
            print_json(answer)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Find the logs on this machine and get every line to a backend.

    Begin with `check`, then `run`; `status` says how a running agent is, and `COMMAND --help` what a command does.

    Exit codes: 0 all well, 1 failed, 2 wrong usage or an invalid configuration.
    """
