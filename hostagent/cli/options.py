"""The options that commands share, so that each is spelt, explained and defaulted in one place.

Stands between click and every command; it reads no file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

DEFAULT_CONFIG = "/etc/hostagent/hostagent.yaml"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option() -> Decorator:
    """`-c/--config PATH`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(),
        default=DEFAULT_CONFIG,
        envvar="HOSTAGENT_CONFIG",
        show_default=True,
        help="The configuration file; conf.d/*.yaml beside it is read, too.",
    )


def json_option() -> Decorator:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")


def api_option() -> Decorator:
    """`--api ADDRESS`."""
    return click.option(
        "--api",
        "address",
        metavar="ADDRESS",
        help="Where the agent listens (unix:/path or host:port), instead of what the configuration says.",
    )
