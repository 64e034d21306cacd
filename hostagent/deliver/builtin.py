"""Announces the built-in outputs, the same way a plugin package announces its own."""

from __future__ import annotations

from collections.abc import Mapping

from hostagent.deliver.outputs.blackhole import BlackholeOptions, build_blackhole
from hostagent.deliver.outputs.file import FileOptions, build_file
from hostagent.deliver.outputs.http import HttpOptions, build_http
from hostagent.deliver.outputs.stdout import StdoutOptions, build_stdout
from hostagent.hookspecs import Component, Output, hookimpl


@hookimpl
def hostagent_register_outputs() -> Mapping[str, Component[Output]]:
    """Outputs that need no dependency."""
    return {
        "file": Component(options=FileOptions, build=build_file),
        "http": Component(options=HttpOptions, build=build_http),
        "stdout": Component(options=StdoutOptions, build=build_stdout),
        "blackhole": Component(options=BlackholeOptions, build=build_blackhole),
    }
