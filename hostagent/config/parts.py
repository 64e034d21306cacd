"""The parts a configuration may name: every component that built-ins and plugin packages have announced.

Made once at start from the plugin hooks and handed to whoever validates or builds. It holds names and components; it
does not load packages and builds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Component, Discovery, Encoder, Framing, Output, Parser, Processor, Tailer


class BrokenPlugin(msgspec.Struct, frozen=True):
    """A plugin package that could not be loaded: its entry point and what went wrong."""

    name: str
    package: str
    reason: str


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Name → component for every kind of part. `origins[kind][name]` is the package that announced it."""

    discoveries: Mapping[str, Component[Discovery]] = {}
    tailers: Mapping[str, Component[Tailer]] = {}
    framings: Mapping[str, Component[Framing]] = {}
    parsers: Mapping[str, Component[Parser]] = {}
    processors: Mapping[str, Component[Processor]] = {}
    encoders: Mapping[str, Component[Encoder]] = {}
    outputs: Mapping[str, Component[Output]] = {}
    origins: Mapping[str, Mapping[str, str]] = {}
    broken: tuple[BrokenPlugin, ...] = ()

    def option_for(self, name: str) -> str:
        """The option of a source under which a part of this name is put; nothing where there is none."""
        options = {"format": self.framings, "parse": self.parsers, "processors": self.processors}
        return next((option for option, known in options.items() if name in known), "")
