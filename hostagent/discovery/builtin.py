"""The source types hostagent knows out of the box. They register as a plugin's would."""

from __future__ import annotations

from collections.abc import Mapping

from hostagent.discovery.container_targets import ContainersOptions
from hostagent.discovery.containers import build_containers
from hostagent.discovery.files import FilesOptions, build_files
from hostagent.hookspecs import Component, Discovery, hookimpl


@hookimpl
def hostagent_register_discoveries() -> Mapping[str, Component[Discovery]]:
    """Announce `file` and `containers`."""
    return {
        "containers": Component(ContainersOptions, build_containers),
        "file": Component(FilesOptions, build_files),
    }
