"""The shape of what Docker Engine answers: of each answer the fields the agent uses, and nothing else.

Names are the engine's own. Whatever may be missing has a default, as engines of ten years write these; and every text
may have been chosen by whoever started the container.
"""

from __future__ import annotations

import msgspec


class Version(msgspec.Struct, frozen=True, rename="pascal"):
    """What the engine says of itself."""

    api_version: str
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    version: str = ""


class Info(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the engine keeps its data."""

    docker_root_dir: str = "/var/lib/docker"


class Listed(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of the list of containers."""

    id: str
    names: list[str] | None = None
    state: str = ""


class LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """Where a container's output goes."""

    type: str = ""
    config: dict[str, str] | None = None


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was started with, outside of it."""

    log_config: LogConfig = LogConfig()
    tmpfs: dict[str, str] | None = None


class ContainerConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was started with, inside of it."""

    image: str = ""
    env: list[str] | None = None
    labels: dict[str, str] | None = None


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the container is in its life."""

    status: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    error: str = ""
    started_at: str = ""
    finished_at: str = ""


class MountPoint(msgspec.Struct, frozen=True, rename="pascal"):
    """A mount of the container."""

    type: str = "bind"
    source: str = ""
    destination: str = ""
    rw: bool = msgspec.field(default=True, name="RW")


class GraphDriver(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the container's root file system is stored."""

    data: dict[str, str] | None = None


class Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    """One container's facts."""

    id: str
    name: str = ""
    log_path: str = ""
    restart_count: int = 0
    state: State = State()
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()
    mounts: list[MountPoint] | None = None
    graph_driver: GraphDriver | None = None


class Actor(msgspec.Struct, frozen=True):
    """Whom an event is about."""

    id: str = msgspec.field(default="", name="ID")


class EngineEvent(msgspec.Struct, frozen=True):
    """One line of the event stream."""

    action: str = msgspec.field(default="", name="Action")
    actor: Actor = msgspec.field(default=Actor(), name="Actor")
    time_ns: int = msgspec.field(default=0, name="timeNano")
