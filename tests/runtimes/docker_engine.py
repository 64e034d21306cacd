"""A private Docker Engine (dockerd and a containerd of its own) under one directory, driven through its API.

    with DockerEngine.started() as docker:
        container = docker.run(["echo", "hello"], labels={"a": "b"}, auto_remove=True)
        docker.wait(container)

It never touches an engine that the machine itself runs: socket, data, state and cgroups are its own, and it makes no
network (containers get the host's or none).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.runtimes.image import BUSYBOX_IMAGE, rootfs_tar
from tests.runtimes.processes import Daemon, cgroup_of, end_leftovers, new_base

CALL_TIMEOUT_S = 60.0


class EngineError(RuntimeError):
    """The engine refused a call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class DockerEngine:
    """The engine's daemons and the calls that tests need. Container arguments are ids or names."""

    def __init__(self, base: Path) -> None:
        # Unix socket paths end at 107 bytes, so the base directory must be short.
        self.base = base
        self.socket = base / "docker.sock"
        self.data_root = base / "docker"
        self.cgroup = cgroup_of(base)
        containerd_socket = base / "containerd.sock"
        containerd_config = base / "containerd.toml"
        containerd_config.write_text(
            f"version = 2\nroot = '{base}/containerd'\nstate = '{base}/containerd-state'\n"
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{containerd_socket}"\n'
        )
        (base / "daemon.json").write_text("{}")
        self.containerd = Daemon(
            ["containerd", "--config", str(containerd_config)], base / "containerd.log", containerd_socket.exists
        )
        self.dockerd = Daemon(
            [
                "dockerd",
                f"--host=unix://{self.socket}",
                f"--data-root={self.data_root}",
                f"--exec-root={base}/docker-exec",
                f"--pidfile={base}/docker.pid",
                f"--containerd={containerd_socket}",
                f"--config-file={base}/daemon.json",
                f"--cgroup-parent=/{self.cgroup}",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                # An engine that crashes or restarts leaves its containers running.
                "--live-restore",
            ],
            base / "dockerd.log",
            self.answers,
        )

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[DockerEngine]:
        """An engine with the busybox image, torn down whole at the end."""
        engine = cls(new_base("ha-docker-"))
        try:
            engine.start()
            engine.import_image(BUSYBOX_IMAGE, rootfs_tar())
            yield engine
        finally:
            engine.close()

    def start(self) -> None:
        self.containerd.start()
        self.dockerd.start()

    def close(self) -> None:
        with contextlib.suppress(OSError, EngineError, http.client.HTTPException):
            self.remove_all()
        self.dockerd.stop()
        self.containerd.stop()
        end_leftovers(self.base, self.cgroup)

    def answers(self) -> bool:
        try:
            return bool(self.call("GET", "/_ping", parse=False) == b"OK")
        except (OSError, EngineError, http.client.HTTPException):
            return False

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        parse: bool = True,
    ) -> Any:  # noqa: ANN401 - JSON
        """One API call; JSON in, JSON out, or the bytes as they came with `parse=False`."""
        if query:
            path += "?" + urllib.parse.urlencode(query)
        connection = UnixConnection(self.socket)
        try:
            if isinstance(body, bytes):
                connection.request(method, path, body, {"Content-Type": "application/x-tar"})
            else:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise EngineError(response.status, answer.decode(errors="replace").strip())
        return json.loads(answer) if parse and answer else answer

    def import_image(self, reference: str, rootfs: bytes) -> None:
        name, _, tag = reference.partition(":")
        self.call("POST", "/images/create", rootfs, query={"fromSrc": "-", "repo": name, "tag": tag}, parse=False)

    def create(
        self,
        command: Sequence[str],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        tmpfs: Mapping[str, str] | None = None,
        log_driver: str = "json-file",
        log_options: Mapping[str, str] | None = None,
        auto_remove: bool = False,
        tty: bool = False,
        network: str = "none",
        host_config: Mapping[str, object] | None = None,
    ) -> str:
        """A container that is not started. `binds` are docker's `source:/destination[:ro]`, a bare name is a volume."""
        answer = self.call(
            "POST",
            "/containers/create",
            {
                "Image": BUSYBOX_IMAGE,
                "Cmd": list(command),
                "Env": [f"{key}={value}" for key, value in (env or {}).items()],
                "Labels": dict(labels or {}),
                "Tty": tty,
                # Docker 20.10 deadlocks now and then while endpoints of "none" come and go at once; so there are none.
                "NetworkDisabled": network == "none",
                "HostConfig": {
                    "Binds": list(binds),
                    "Tmpfs": dict(tmpfs or {}),
                    "LogConfig": {"Type": log_driver, "Config": dict(log_options or {})},
                    "AutoRemove": auto_remove,
                    "NetworkMode": network,
                    **(host_config or {}),
                },
            },
            query={"name": name} if name else None,
        )
        return str(answer["Id"])

    def run(self, command: Sequence[str], **options: Any) -> str:  # noqa: ANN401
        """`docker run -d`: the arguments are those of `create`."""
        container = self.create(command, **options)
        self.act(container, "start")
        return container

    def act(self, container: str, action: str, **query: object) -> None:
        """start, stop (t=seconds), restart (t=…), kill (signal=…), pause, unpause, rename (name=…)."""
        self.call("POST", f"/containers/{container}/{action}", query=query, parse=False)

    def wait(self, container: str) -> int:
        """The container's exit code, once it has ended; -1 where it was removed meanwhile."""
        try:
            return int(self.call("POST", f"/containers/{container}/wait")["StatusCode"])
        except EngineError as error:
            if error.status == 404:
                return -1
            raise

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}", query={"force": 1, "v": 1})

    def remove_all(self) -> None:
        for container in self.containers():
            with contextlib.suppress(EngineError):
                self.remove(container["Id"])

    def containers(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.call("GET", "/containers/json", query={"all": 1})
        return answer

    def inspect(self, container: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", f"/containers/{container}/json")
        return answer

    def execute(self, container: str, command: Sequence[str]) -> None:
        """Run a command inside and wait for its end."""
        made = self.call("POST", f"/containers/{container}/exec", {"Cmd": list(command), "AttachStdout": True})
        self.call("POST", f"/exec/{made['Id']}/start", {"Detach": False}, parse=False)
        code = self.call("GET", f"/exec/{made['Id']}/json")["ExitCode"]
        if code != 0:
            raise RuntimeError(f"{command!r} in {container} ended with {code}")
