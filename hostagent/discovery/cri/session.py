"""Kubernetes' containers, as containerd or CRI-O describes them over CRI, in runtime-neutral terms.

It turns the runtime's answers into `Container` values and its events into ids to look at; `runtime/` keeps the
picture. Who a pod is comes from its sandbox, which the kubelet made, never from labels or from the container.
"""

from __future__ import annotations

import os.path
import threading
from collections.abc import Callable, Hashable, Mapping

import msgspec

from hostagent.clock import Clock
from hostagent.discovery.cri.api import CONTAINERD_NAMESPACE, CriApi, UnsupportedError
from hostagent.discovery.cri.events import ContainerdEvents, CriEvents, FirstOffered, ListedEvents
from hostagent.discovery.cri.proto import cri_pb2 as cri
from hostagent.discovery.runtime.container import Container, ContainerState, Mount, Pod, environment
from hostagent.discovery.runtime.session import ContainerFaultError, EventStream, NotAContainerError
from hostagent.hookspecs import Notice

STATES: Mapping[int, ContainerState] = {
    cri.CONTAINER_CREATED: ContainerState.CREATED,
    cri.CONTAINER_RUNNING: ContainerState.RUNNING,
    cri.CONTAINER_EXITED: ContainerState.EXITED,
}
RESTART_COUNT = "io.kubernetes.container.restartCount"
OOM_REASON = "OOMKilled"
# The kernel's own file systems in a container; nobody logs there.
KERNEL_MOUNTS = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue")


class _Process(msgspec.Struct, frozen=True):
    env: list[str] | None = None


class _Root(msgspec.Struct, frozen=True):
    path: str = ""


class _SpecMount(msgspec.Struct, frozen=True):
    destination: str = ""
    type: str = ""
    source: str = ""
    options: list[str] | None = None


class _Spec(msgspec.Struct, frozen=True):
    process: _Process | None = None
    root: _Root | None = None
    mounts: list[_SpecMount] | None = None


class _Info(msgspec.Struct, frozen=True):
    """What both runtimes put into the `info` of a verbose status; no contract, so everything may be missing."""

    pid: int = 0
    snapshotter: str = ""
    snapshot_key: str = msgspec.field(default="", name="snapshotKey")
    spec: _Spec | None = msgspec.field(default=None, name="runtimeSpec")


_INFO = msgspec.json.Decoder(_Info)


class _RuntimeConfig(msgspec.Struct, frozen=True):
    state_dir: str = msgspec.field(default="", name="stateDir")


_RUNTIME_CONFIG = msgspec.json.Decoder(_RuntimeConfig)


class CriSession:
    """One connection to a runtime."""

    def __init__(self, socket_path: str, clock: Clock) -> None:
        self._api = CriApi(socket_path)
        self._clock = clock
        self._lock = threading.Lock()
        self._sandboxes: dict[str, cri.PodSandbox] = {}
        try:
            self._is_containerd = self._api.version().runtime_name == "containerd"
            self._state_dir = self._containerd_state_dir() if self._is_containerd else ""
        except BaseException:
            self._api.close()
            raise

    def close(self) -> None:
        """Close the channel."""
        self._api.close()

    def subscribe(self) -> EventStream:
        """The best stream of events the runtime offers."""
        openers: list[Callable[[], EventStream]] = [
            lambda: CriEvents(self._api),
            lambda: ListedEvents(self._api, self._clock),
        ]
        if self._is_containerd:
            openers.insert(0, lambda: ContainerdEvents(self._api))
        return FirstOffered(openers)

    def list(self) -> Mapping[str, Hashable]:
        """Ids with their state."""
        listed = self._api.containers()
        sandboxes = {one.pod_sandbox_id for one in listed}
        with self._lock:
            self._sandboxes = {key: one for key, one in self._sandboxes.items() if key in sandboxes}
        return {one.id: one.state for one in listed}

    def glance(self, container_id: str) -> Container | None:
        """Not needed: a container's log outlives it here."""
        return None

    def describe(self, container_id: str) -> Container | None:
        """One container as the runtime knows it now."""
        row = self._api.container(container_id)
        if row is None:
            if self._api.sandbox(container_id) is not None:
                raise NotAContainerError("the sandbox of a pod")
            return None
        answer = self._api.container_status(container_id)
        if answer is None:
            return None
        sandbox = self._sandbox(row.pod_sandbox_id)
        if sandbox is None:
            # A container can't outlive its sandbox: both are being removed, and an event will say so.
            raise ContainerFaultError(f"the runtime doesn't know its sandbox {row.pod_sandbox_id[:12]}")
        return self._container(row, answer, sandbox)

    def _sandbox(self, sandbox_id: str) -> cri.PodSandbox | None:
        with self._lock:
            known = self._sandboxes.get(sandbox_id)
        if known is None and (known := self._api.sandbox(sandbox_id)) is not None:
            with self._lock:
                self._sandboxes[sandbox_id] = known
        return known

    def _container(self, row: cri.Container, answer: cri.ContainerStatusResponse, sandbox: cri.PodSandbox) -> Container:
        status = answer.status
        info = _info_of(answer)
        state = STATES.get(status.state, ContainerState.UNKNOWN)
        name = status.metadata.name
        restarts = status.annotations.get(RESTART_COUNT, "")
        return Container(
            id=row.id,
            name=name,
            runtime="cri",
            image=_image_of(row, status),
            state=state,
            pid=info.pid if info and state == ContainerState.RUNNING else 0,
            env=environment(info.spec.process.env or ()) if info and info.spec and info.spec.process else {},
            labels=dict(status.labels),
            annotations=dict(status.annotations),
            pod=Pod(
                name=sandbox.metadata.name,
                namespace=sandbox.metadata.namespace,
                uid=sandbox.metadata.uid,
                labels=dict(sandbox.labels),
                annotations=dict(sandbox.annotations),
            ),
            log_path=status.log_path,
            log_format="cri" if status.log_path else "",
            log_notice=_notice_of(
                f"container {sandbox.metadata.namespace}/{sandbox.metadata.name}/{name}", status, info
            ),
            mounts=_mounts_of(status, info),
            roots=self._roots_of(row.id, info),
            restarts=int(restarts) if restarts.isascii() and restarts.isdigit() else status.metadata.attempt,
            exit_code=status.exit_code if state == ContainerState.EXITED else None,
            oom_killed=status.reason == OOM_REASON,
            reason=status.reason,
            started_ns=max(status.started_at, 0),
            finished_ns=max(status.finished_at, 0),
        )

    def _roots_of(self, container_id: str, info: _Info | None) -> tuple[str, ...]:
        """Where the root is mounted while the container runs, then the directory with what it wrote, until removal."""
        if info is None:
            return ()
        roots = []
        path = info.spec.root.path if info.spec and info.spec.root else ""
        if path.startswith("/"):
            roots.append(path)
        elif self._state_dir:
            task = f"io.containerd.runtime.v2.task/{CONTAINERD_NAMESPACE}/{container_id}"
            roots.append(f"{self._state_dir}/{task}/rootfs")
        if self._is_containerd and info.snapshotter and info.snapshot_key:
            try:
                mounts = self._api.snapshot_mounts(info.snapshotter, info.snapshot_key)
            except (UnsupportedError, ContainerFaultError):
                mounts = []
            options = [option for mount in mounts for option in mount.options]
            roots += [one.removeprefix("upperdir=") for one in options if one.startswith("upperdir=/")]
        return tuple(roots)

    def _containerd_state_dir(self) -> str:
        """The state directory of containerd itself: the parent of its CRI plugin's."""
        try:
            config = _RUNTIME_CONFIG.decode(self._api.status_info().get("config", ""))
        except (msgspec.DecodeError, UnsupportedError):
            return ""
        return os.path.dirname(config.state_dir) if config.state_dir.startswith("/") else ""


def _info_of(answer: cri.ContainerStatusResponse) -> _Info | None:
    try:
        return _INFO.decode(answer.info.get("info", ""))
    except msgspec.DecodeError:
        return None


def _image_of(row: cri.Container, status: cri.ContainerStatus) -> str:
    """The image as somebody named it, rather than its digest."""
    names = (row.image.user_specified_image, status.image.user_specified_image, status.image.image, row.image.image)
    return next((name for name in names if name and not name.startswith("sha256:")), status.image_ref)


def _notice_of(subject: str, status: cri.ContainerStatus, info: _Info | None) -> Notice | None:
    if not status.log_path:
        return Notice(subject, "its output goes to no file", "its pod was made without a log directory")
    if info is None:
        text = "the runtime doesn't tell its environment and files: only its output is collected"
        return Notice(subject, text, "use a runtime that answers a verbose ContainerStatus")
    return None


def _mounts_of(status: cri.ContainerStatus, info: _Info | None) -> tuple[Mount, ...]:
    """The kubelet's mounts, and those the runtime adds, such as tmpfs."""
    mounts = [Mount(one.container_path, one.host_path, "bind", one.readonly) for one in status.mounts]
    listed = {one.destination for one in mounts}
    for one in (info.spec.mounts if info and info.spec else None) or ():
        if one.destination in listed or one.type in KERNEL_MOUNTS or not one.destination.startswith("/"):
            continue
        bound = one.type == "bind" or "rbind" in (one.options or ()) or "bind" in (one.options or ())
        read_only = "ro" in (one.options or ())
        mounts.append(Mount(one.destination, one.source if bound else "", "bind" if bound else "tmpfs", read_only))
    return tuple(mounts)
