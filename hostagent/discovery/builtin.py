"""The source types hostagent knows out of the box. They register as a plugin's would.

What talks to container runtimes is imported when a source wants it: a host without containers does not pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from hostagent.discovery.containers.options import ContainersOptions
from hostagent.discovery.files import FilesOptions, build_files
from hostagent.hookspecs import Component, Discovery, Wiring, hookimpl


@hookimpl
def hostagent_register_discoveries() -> Mapping[str, Component[Discovery]]:
    """Announce `file` and `containers`."""
    return {
        "containers": Component(ContainersOptions, _build_containers),
        "file": Component(FilesOptions, build_files),
    }


def _build_containers(options: ContainersOptions, wiring: Wiring) -> Discovery:
    from hostagent.discovery.containers.source import build_containers

    return build_containers(options, wiring)
