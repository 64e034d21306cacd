"""A private containerd with its CRI plugin under one directory, driven through CRI v1 as a kubelet would.

    with CriEngine.started() as cri:
        pod = cri.run_pod("web-0", namespace="shop", labels={"app": "web"})
        container = cri.run(pod, "nginx", ["sh", "-c", "echo hello; sleep 60"])
        cri.rotate_log(container)

Pods share the machine's network, so no CNI is needed. Log files lie where a kubelet puts them, under `log_root`.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
from google.protobuf.message import Message

from hostagent.discovery.cri.proto import cri_pb2 as cri
from tests.runtimes.image import BUSYBOX_IMAGE, PAUSE_IMAGE, docker_archive, rootfs_tar
from tests.runtimes.processes import Daemon, cgroup_of, end_leftovers, new_base
from tests.support.waiting import NotInTimeError, wait_for

CALL_TIMEOUT_S = 60.0
Answer = TypeVar("Answer", bound=Message)
SERVICE = "/runtime.v1.RuntimeService/"
CONFIG = """\
version = 2
root = '{base}/containerd'
state = '{base}/containerd-state'
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{base}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{base}/cni-bin"
conf_dir = "{base}/cni-conf"
"""


class PodSandbox(msgspec.Struct, frozen=True):
    """A pod that runs: its sandbox id and the configuration each of its containers must repeat."""

    id: str
    config: cri.PodSandboxConfig
    log_directory: Path


class CriContainer(msgspec.Struct, frozen=True):
    """A container of a pod and the log file its runtime writes."""

    id: str
    pod: PodSandbox
    name: str
    log_path: Path


class CriEngine:
    """containerd and the CRI calls that tests need."""

    def __init__(self, base: Path, program: str = "containerd") -> None:
        self.base = base
        self.socket = base / "containerd.sock"
        self.log_root = base / "pods"
        self.cgroup = cgroup_of(base)
        self._attempts: dict[tuple[str, str], Iterator[int]] = {}
        self._channel: grpc.Channel | None = None
        config = base / "containerd.toml"
        config.write_text(CONFIG.format(base=base, socket=self.socket, pause=f"docker.io/{PAUSE_IMAGE}"))
        self.containerd = Daemon([program, "--config", str(config)], base / "containerd.log", self.answers)

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[CriEngine]:
        """An engine with the busybox and pause images, torn down whole at the end."""
        engine = cls(new_base("ha-cri-"))
        try:
            engine.start()
            layer = rootfs_tar()
            engine.import_image(docker_archive(BUSYBOX_IMAGE, layer, ["sh"]))
            engine.import_image(docker_archive(PAUSE_IMAGE, layer, ["sh", "-c", "exec sleep 2147483647"]))
            yield engine
        finally:
            engine.close()

    def start(self) -> None:
        self.containerd.start()

    def close(self) -> None:
        with contextlib.suppress(grpc.RpcError, NotInTimeError):
            self.remove_all()
        self._close_channel()
        self.containerd.stop()
        end_leftovers(self.base, self.cgroup)

    def answers(self) -> bool:
        try:
            self.call("Version", cri.VersionRequest(), cri.VersionResponse, timeout_s=2.0)
            return True
        except grpc.RpcError:
            # A channel that found no socket waits a second before it looks again; a new one looks at once.
            self._close_channel()
            return False

    def call(self, name: str, request: Message, answer: type[Answer], timeout_s: float = CALL_TIMEOUT_S) -> Answer:
        """One call of the runtime service."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)]
            )
        invoke = self._channel.unary_unary(
            SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return invoke(request, timeout=timeout_s)

    def import_image(self, archive: bytes) -> None:
        path = self.base / "image.tar"
        path.write_bytes(archive)
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", "images", "import", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        path.unlink()

    def run_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        uid: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> PodSandbox:
        """A running sandbox, labelled as a kubelet labels it besides the labels given."""
        uid = uid or str(uuid.uuid4())
        log_directory = self.log_root / f"{namespace}_{name}_{uid}"
        log_directory.mkdir(parents=True, exist_ok=True)
        kubelet_labels = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace=namespace),
            log_directory=str(log_directory),
            labels={**kubelet_labels, **(labels or {})},
            annotations=annotations or {},
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.cgroup}",
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=cri.NamespaceOption(network=cri.NODE)
                ),
            ),
        )
        answer = self.call("RunPodSandbox", cri.RunPodSandboxRequest(config=config), cri.RunPodSandboxResponse)
        return PodSandbox(answer.pod_sandbox_id, config, log_directory)

    def create(
        self,
        pod: PodSandbox,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> CriContainer:
        """A container that is not started; `mounts` maps host paths to container paths."""
        # A kubelet counts the attempts of a container in its pod: each has a log file of its own.
        attempt = next(self._attempts.setdefault((pod.id, name), itertools.count()))
        log_path = f"{name}/{attempt}.log"
        (pod.log_directory / name).mkdir(exist_ok=True)
        kubelet_labels = {"io.kubernetes.container.name": name, **dict(pod.config.labels)}
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=cri.ImageSpec(image=f"docker.io/{BUSYBOX_IMAGE}"),
            command=list(command),
            envs=[cri.KeyValue(key=key, value=value) for key, value in (env or {}).items()],
            mounts=[cri.Mount(host_path=host, container_path=inside) for host, inside in (mounts or {}).items()],
            labels={**kubelet_labels, **(labels or {})},
            annotations={"io.kubernetes.container.restartCount": str(attempt), **(annotations or {})},
            log_path=log_path,
            tty=tty,
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER)
                )
            ),
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        answer = self.call("CreateContainer", request, cri.CreateContainerResponse)
        return CriContainer(answer.container_id, pod, name, pod.log_directory / log_path)

    def run(self, pod: PodSandbox, name: str, command: Sequence[str], **options: Any) -> CriContainer:  # noqa: ANN401
        """Create and start; the arguments are those of `create`."""
        container = self.create(pod, name, command, **options)
        self.start_container(container)
        return container

    def start_container(self, container: CriContainer) -> None:
        self.call("StartContainer", cri.StartContainerRequest(container_id=container.id), cri.StartContainerResponse)

    def stop_container(self, container: CriContainer, grace_s: int = 0) -> None:
        request = cri.StopContainerRequest(container_id=container.id, timeout=grace_s)
        self.call("StopContainer", request, cri.StopContainerResponse)

    def remove_container(self, container_id: str) -> None:
        self.call("RemoveContainer", cri.RemoveContainerRequest(container_id=container_id), cri.RemoveContainerResponse)

    def remove_pod(self, pod_id: str) -> None:
        """Stop the sandbox with its containers and remove them; the log files stay."""
        self.call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=pod_id), cri.StopPodSandboxResponse)
        self.call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=pod_id), cri.RemovePodSandboxResponse)

    def remove_all(self) -> None:
        """Remove every pod with its logs. A runtime that was just killed and started needs more than one try."""
        wait_for(self._all_removed, "removal of all pods")
        shutil.rmtree(self.log_root, ignore_errors=True)

    def _all_removed(self) -> bool:
        for pod in self.call("ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse).items:
            try:
                self.remove_pod(pod.id)
            except grpc.RpcError:
                return False
        return True

    def status(self, container: CriContainer, *, verbose: bool = False) -> cri.ContainerStatusResponse:
        request = cri.ContainerStatusRequest(container_id=container.id, verbose=verbose)
        return self.call("ContainerStatus", request, cri.ContainerStatusResponse)

    def exited(self, container: CriContainer) -> bool:
        return bool(self.status(container).status.state == cri.CONTAINER_EXITED)

    def execute(self, container: CriContainer, command: Sequence[str]) -> bytes:
        """Run a command inside; its output."""
        request = cri.ExecSyncRequest(container_id=container.id, cmd=list(command), timeout=30)
        answer = self.call("ExecSync", request, cri.ExecSyncResponse)
        if answer.exit_code != 0:
            raise RuntimeError(f"{command!r} ended with {answer.exit_code}: {answer.stderr!r}")
        return bytes(answer.stdout)

    def rotate_log(self, container: CriContainer, stamp: str = "20260101-000000") -> Path:
        """Rotate as a kubelet does: rename, then have the runtime open the old name anew. The rotated file's path."""
        rotated = container.log_path.with_name(f"{container.log_path.name}.{stamp}")
        container.log_path.rename(rotated)
        request = cri.ReopenContainerLogRequest(container_id=container.id)
        self.call("ReopenContainerLog", request, cri.ReopenContainerLogResponse)
        return rotated

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
