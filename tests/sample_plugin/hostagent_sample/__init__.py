"""A plugin package with one small part for every hook: what the agent finds when it loads the entry point.

This module only announces; what the parts do stands in `parts.py`. Nothing here runs per line.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from hostagent.hookspecs import (
    Component,
    Discovery,
    Encoder,
    Framing,
    Output,
    Parser,
    Processor,
    Tailer,
    hookimpl,
)
from hostagent.model import Scalar, Target

from . import parts


@hookimpl
def hostagent_register_discoveries() -> Mapping[str, Component[Discovery]]:
    """`type: sample-list` of a source."""
    build = lambda options, wiring: parts.ListDiscovery(options, wiring.name)  # noqa: E731 - as short as it reads
    return {"sample-list": Component(parts.ListOptions, build)}


@hookimpl
def hostagent_register_tailers() -> Mapping[str, Component[Tailer]]:
    """Rotated files whose bytes were turned upside down."""
    return {"sample-inverted": Component(parts.NoOptions, lambda _options, _wiring: parts.InvertedTailer())}


@hookimpl
def hostagent_register_framings() -> Mapping[str, Component[Framing]]:
    """`format: {type: sample-ended, mark: ";"}` of a source."""
    return {"sample-ended": Component(parts.EndedOptions, lambda options, _wiring: parts.EndedFraming(options.mark))}


@hookimpl
def hostagent_register_parsers() -> Mapping[str, Component[Parser]]:
    """`parse: sample-pair` of a source."""
    return {"sample-pair": Component(parts.PairOptions, lambda options, _wiring: parts.PairParser(options.pattern))}


@hookimpl
def hostagent_register_processors() -> Mapping[str, Component[Processor]]:
    """`processors: [{type: sample-shout}]` of a source."""
    return {"sample-shout": Component(parts.ShoutOptions, lambda options, _wiring: parts.ShoutProcessor(options.field))}


@hookimpl
def hostagent_register_encoders() -> Mapping[str, Component[Encoder]]:
    """`encoding: sample-plain` of an output."""
    return {"sample-plain": Component(parts.NoOptions, lambda _options, _wiring: parts.PlainEncoder())}


@hookimpl
def hostagent_register_outputs() -> Mapping[str, Component[Output]]:
    """`type: sample-append` of an output."""
    return {"sample-append": Component(parts.AppendOptions, lambda options, _wiring: parts.AppendOutput(options))}


@hookimpl
def hostagent_register_commands(group: click.Group) -> None:
    """`hostagent sample-greet`."""

    @group.command("sample-greet")
    @click.argument("name")
    def greet(name: str) -> None:
        """Greet somebody."""
        click.echo(f"hello {name}")


@hookimpl
def hostagent_describe_target(target: Target) -> Mapping[str, Scalar] | None:
    """Every record gets to know how its target was declared."""
    return {"sample_declared_in": target.declaration}
