"""The options that commands share, so that each is spelt, explained and defaulted in one place.

Stands between click and every command; of files it reads no more than where the configuration says the state is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hostagent.errors import HostagentError

# In a context's `meta`: whether an error is wanted as JSON, too.
JSON_WANTED = "hostagent.json"
DEFAULT_CONFIG = "/etc/hostagent/hostagent.yaml"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option() -> Decorator:
    """`-c/--config PATH`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(readable=False),  # whether it can be read is told by whoever reads it
        default=DEFAULT_CONFIG,
        envvar="HOSTAGENT_CONFIG",
        show_envvar=True,
        show_default=True,
        help="The configuration file; conf.d/*.yaml beside it is read, too.",
    )


def json_option() -> Decorator:
    """`--json`."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
        ctx.meta[JSON_WANTED] = value
        return value

    text = "Print JSON for programs instead of text for people."
    return click.option("--json", "as_json", is_flag=True, callback=remember, help=text)


def api_option() -> Decorator:
    """`--api ADDRESS`."""
    return click.option(
        "--api",
        "address",
        metavar="ADDRESS",
        help="Where the agent listens (unix:/path or host:port), instead of what the configuration says.",
    )


def data_dir_option() -> Decorator:
    """`--data-dir PATH`."""
    return click.option(
        "--data-dir",
        "data_dir",
        type=click.Path(file_okay=False, readable=False),
        help="Where the agent keeps its state, instead of what the configuration says.",
    )


def wait_option() -> Decorator:
    """`--wait SECONDS`."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for a running agent to do it.",
    )


def must_be_there(config_path: str) -> None:
    """Refuse a configuration that is named and does not exist: the defaults may be those of another agent."""
    if config_path != DEFAULT_CONFIG and not os.path.lexists(config_path):
        raise HostagentError(f"there is no {config_path}: name the agent's configuration with -c/--config")


def find_data_dir(config_path: str, override: str | None) -> Path:
    """Where the state lies; it is found even while the rest of the configuration is broken."""
    from hostagent.config.single import read_data_dir

    if override is not None:
        data_dir, said = Path(override), "--data-dir"
    else:
        must_be_there(config_path)
        data_dir, said = read_data_dir(config_path), f"data_dir of {config_path}"
    try:
        os.listdir(data_dir)
    except FileNotFoundError:
        hint = "name the right configuration with -c, or the directory with --data-dir"
        raise HostagentError(f"{data_dir} ({said}) does not exist: no agent has run with it; {hint}") from None
    except PermissionError:
        raise HostagentError(
            f"{data_dir} ({said}): this user may not look into it: use sudo, or the agent's user"
        ) from None
    except OSError as error:
        raise HostagentError(f"{data_dir} ({said}) can't be read: {error.strerror}") from error
    return data_dir
