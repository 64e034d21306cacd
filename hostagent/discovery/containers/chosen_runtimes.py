"""Which container runtimes are followed: those the operator names, or those whose sockets are in their usual places.

A runtime is named by its kind and socket, `docker:///var/run/docker.sock` or
`cri:///run/containerd/containerd.sock`. What a kind costs in memory is loaded only when somebody listens at its socket.
"""

from __future__ import annotations

import os.path
import threading
from collections.abc import Callable, Sequence

from hostagent.clock import Clock
from hostagent.discovery.runtime.container import ContainerChange, ContainerRuntime
from hostagent.discovery.runtime.follower import Follower
from hostagent.discovery.runtime.session import RuntimeFaultError, Session
from hostagent.discovery.runtime.unix_socket import connected
from hostagent.hookspecs import Notice

RECONCILE_INTERVAL_S = 30.0
USUAL_DOCKER = ("/var/run/docker.sock",)
USUAL_CRI = ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/crio/crio.sock")


def runtimes_of(names: Sequence[str], clock: Clock, host_root: str = "/") -> list[ContainerRuntime]:
    """The runtimes to follow; without names, whatever there is. ValueError for a name of no known kind."""
    if names:
        return [_named(name, clock, host_root) for name in names]
    usual = [
        docker_runtime(_seen(path, host_root), clock, host_root=host_root, expected=False) for path in USUAL_DOCKER
    ]
    usual += [cri_runtime(_seen(path, host_root), clock, expected=False) for path in USUAL_CRI]
    return [UsualRuntimes(usual)]


def docker_runtime(
    socket_path: str,
    clock: Clock,
    reconcile_interval_s: float = RECONCILE_INTERVAL_S,
    host_root: str = "/",
    *,
    expected: bool = True,
) -> Follower:
    """Follow the Docker Engine behind a socket; `host_root` is where its machine's files are seen."""

    def connect() -> Session:
        from hostagent.discovery.docker.session import DockerSession  # noqa: PLC0415 - loads http.client

        return DockerSession(socket_path, clock, host_root)

    return Follower(f"docker at {socket_path}", connect, clock, reconcile_interval_s, expected=expected)


def cri_runtime(
    socket_path: str, clock: Clock, reconcile_interval_s: float = RECONCILE_INTERVAL_S, *, expected: bool = True
) -> Follower:
    """Follow the runtime behind a CRI socket."""

    def connect() -> Session:
        # grpcio takes 20 MB, which a machine without such a runtime shall not pay.
        connected(socket_path, "the container runtime", 5.0).close()
        try:
            from hostagent.discovery.cri.session import CriSession  # noqa: PLC0415
        except ImportError as error:
            text = f"the runtime at {socket_path} can't be spoken to: {error}"
            raise RuntimeFaultError(text, "install hostagent with its extra `containers`") from error
        return CriSession(socket_path, clock)

    return Follower(f"cri at {socket_path}", connect, clock, reconcile_interval_s, expected=expected, pods=True)


class UsualRuntimes:
    """Several runtimes that may or may not be there, as one: it is missed only if none of them is."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = followers

    def run(self, publish: Callable[[ContainerChange], None], stop: threading.Event) -> None:
        """Follow all of them, each in a thread of its own."""
        lock = threading.Lock()
        unlisted = len(self._followers)

        def pass_on(change: ContainerChange) -> None:
            nonlocal unlisted
            if change.container is None:
                with lock:
                    unlisted -= 1
                    if unlisted:
                        return
            publish(change)

        own_name = threading.current_thread().name
        threads = [
            threading.Thread(target=follower.run, args=(pass_on, stop), name=f"{own_name}:{number}", daemon=True)
            for number, follower in enumerate(self._followers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def knows_pods(self) -> bool:
        """Whether one of them has told which containers Kubernetes' pods have."""
        return any(follower.knows_pods() for follower in self._followers)

    def notices(self) -> list[Notice]:
        """What those say that were there at some time; one notice if none ever was."""
        if any(follower.answered for follower in self._followers):
            return [notice for follower in self._followers for notice in follower.notices()]
        sockets = ", ".join(follower.subject for follower in self._followers)
        hint = "start one, or name its socket in the source's `runtimes`"
        return [Notice("containers", f"no container runtime answers: looked for {sockets}", hint)]


def _named(name: str, clock: Clock, host_root: str) -> ContainerRuntime:
    kind, _, path = name.partition("://")
    if kind == "docker" and path.startswith("/"):
        return docker_runtime(path, clock, host_root=host_root)
    if kind == "cri" and path.startswith("/"):
        return cri_runtime(path, clock)
    raise ValueError(f"{name!r} names no runtime: write docker:///path/to/socket or cri:///path/to/socket")


def _seen(path: str, host_root: str) -> str:
    return os.path.join(host_root, path.lstrip("/"))
