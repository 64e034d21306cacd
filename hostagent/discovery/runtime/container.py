"""A container as every runtime's discovery describes it, before anybody decides which of its logs to read.

Docker and CRI discoveries make these values, declarations and filters read them, and targets are made from both. The
module holds data only. Everything in it except `id`, `pod` and the paths the runtime chose itself was written by
whoever started the container and must be treated as hostile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from hostagent.hookspecs import Notice


class ContainerState(StrEnum):
    """Where a container is in its life, in the words of no particular runtime."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    UNKNOWN = "unknown"


class Mount(NamedTuple):
    """A directory or file of the host that a container sees at `destination`.

    `source` is the host's own path, without the host-root prefix under which the agent may see it.
    `kind` is "bind", "volume" or "tmpfs"; a tmpfs has no source on the host and is reached through the root only.
    """

    destination: str
    source: str
    kind: str = "bind"
    read_only: bool = False


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """The Kubernetes pod a container belongs to, as the runtime (not the container's own labels) knows it."""

    name: str
    namespace: str
    uid: str
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One container at one moment. All paths are the host's: a host-root prefix is added where they are opened.

    `name` is docker's name without its slash, or the pod's container name. `log_path` is the file its stdout and
    stderr go to, empty when there is none. `log_notice` says what keeps some of its logs from being collected and what
    to do. `log_format` names the framing.
    `roots` are host directories that show the container's root file system, the best first; `/proc/<pid>/root` shows
    it too while `pid` is not 0, with mounts and tmpfs in place.
    """

    id: str
    name: str
    runtime: str  # "docker" | "cri"
    image: str
    state: ContainerState
    pid: int = 0
    env: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    pod: Pod | None = None
    log_path: str = ""
    log_format: str = ""
    log_notice: Notice | None = None
    mounts: tuple[Mount, ...] = ()
    roots: tuple[str, ...] = ()
    restarts: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    reason: str = ""
    started_ns: int = 0
    finished_ns: int = 0


class ContainerChange(NamedTuple):
    """What a runtime's discovery publishes; `removed` carries the last value that was known of the container.

    `listed` comes once, without a container: everything that was there at the start has been published.
    """

    kind: str  # "added" | "changed" | "removed" | "listed"
    container: Container | None = None


class ContainerRuntime(Protocol):
    """Follows the containers of one runtime socket, in a thread of its own."""

    def run(self, publish: Callable[[ContainerChange], None], stop: threading.Event) -> None:
        """Publish every container there is, then every change, until `stop` is set. Survives any runtime fault."""

    def knows_pods(self) -> bool:
        """Whether it has told which containers Kubernetes' pods have."""

    def notices(self) -> list[Notice]:
        """What keeps this runtime's containers from being followed right now; called from another thread."""


def environment(entries: Iterable[str]) -> dict[str, str]:
    """`NAME=value` entries as a mapping; where a name comes twice, the last one counts."""
    return {name: value for name, found, value in (entry.partition("=") for entry in entries) if found and name}
