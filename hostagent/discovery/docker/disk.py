"""A just created container as Docker Engine wrote it to its data directory, before the API gives an answer.

The engine holds a container's lock while it starts it, so an inspection of a container that lives for milliseconds is
answered when it is over. These files are no contract: what can't be read here is left to the API, which is asked
anyway.
"""

from __future__ import annotations

import os
import re

import msgspec

from hostagent.discovery.docker.answers import (
    ContainerConfig,
    GraphDriver,
    HostConfig,
    Inspected,
    MountPoint,
    State,
)
from hostagent.discovery.docker.api import MAX_INSPECT_BYTES

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
LAYER_ID = re.compile(rb"[0-9a-z-]{1,80}")


class _Stored(msgspec.Struct, frozen=True, rename="pascal"):
    """`config.v2.json`, as far as it is used."""

    id: str = msgspec.field(name="ID")
    name: str = ""
    driver: str = ""
    config: ContainerConfig = ContainerConfig()
    mount_points: dict[str, MountPoint] | None = None


_STORED = msgspec.json.Decoder(_Stored)
_HOST_CONFIG = msgspec.json.Decoder(HostConfig)


def fresh_from_disk(host_root: str, docker_root: str, container_id: str) -> Inspected | None:
    """The facts of a container that has not been started yet; None where the files don't say."""
    if CONTAINER_ID.fullmatch(container_id) is None:
        return None
    root = os.path.join(host_root, docker_root.lstrip("/"))
    directory = os.path.join(root, "containers", container_id)
    try:
        stored = _STORED.decode(_content(f"{directory}/config.v2.json"))
        host_config = _HOST_CONFIG.decode(_content(f"{directory}/hostconfig.json"))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if stored.id != container_id:
        return None
    return Inspected(
        id=container_id,
        name=stored.name,
        state=State(status="created"),
        config=stored.config,
        host_config=host_config,
        mounts=list((stored.mount_points or {}).values()),
        graph_driver=_layer(root, docker_root, stored.driver, container_id),
    )


def _layer(root: str, docker_root: str, driver: str, container_id: str) -> GraphDriver | None:
    if driver not in ("overlay2", "fuse-overlayfs"):
        return None
    try:
        layer = _content(f"{root}/image/{driver}/layerdb/mounts/{container_id}/mount-id").strip()
    except OSError:
        return None
    if LAYER_ID.fullmatch(layer) is None:
        return None
    directory = f"{docker_root}/{driver}/{layer.decode()}"
    return GraphDriver({"MergedDir": f"{directory}/merged", "UpperDir": f"{directory}/diff"})


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_INSPECT_BYTES)
