"""Which runtimes are followed, and what is said when there are none; from real runtimes in made-up host roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import runtimes_of
from tests.runtimes.cri_engine import CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.runtimes.picture import Picture
from tests.runtimes.socket_proxy import SocketProxy
from tests.support.waiting import wait_for


@NEEDS_DOCKER
@NEEDS_CRI
def test_runtimes_in_their_usual_places_are_found(
    docker_runtime: DockerEngine, cri_runtime: CriEngine, tmp_path: Path
) -> None:
    docker_socket = tmp_path / "var/run/docker.sock"
    cri_socket = tmp_path / "run/containerd/containerd.sock"
    docker_socket.parent.mkdir(parents=True)
    cri_socket.parent.mkdir(parents=True)
    in_docker = docker_runtime.run(["true"])
    in_pod = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["true"]).id
    (runtime,) = runtimes_of((), Clock(), str(tmp_path))
    with SocketProxy.before(docker_runtime.socket, docker_socket), Picture.of(runtime) as picture:
        picture.wait_for(in_docker)
        wait_for(lambda: picture.listed is not None, "the end of the list")
        # Nobody asked for the others.
        picture.wait_no_notices()
        with SocketProxy.before(cri_runtime.socket, cri_socket):
            picture.wait_for(in_pod)
        # But one that was there is missed.
        picture.wait_notice("No such file")
        assert in_docker in picture.now


def test_no_runtime_at_all_is_said_once(tmp_path: Path) -> None:
    (runtime,) = runtimes_of((), Clock(), str(tmp_path))
    with Picture.of(runtime) as picture:
        wait_for(lambda: picture.listed is not None, "the end of the list")
        assert picture.listed == frozenset()
        assert len(runtime.notices()) == 1
        assert "runtimes" in picture.wait_notice("no container runtime answers").hint


def test_a_named_runtime_is_missed(tmp_path: Path) -> None:
    (runtime,) = runtimes_of((f"docker://{tmp_path}/docker.sock",), Clock())
    with Picture.of(runtime) as picture:
        assert "start Docker" in picture.wait_notice("No such file").hint
        assert picture.listed is None


@pytest.mark.parametrize("name", ["podman:///run/podman.sock", "docker://", "cri://relative", "/var/run/docker.sock"])
def test_a_name_of_no_known_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no runtime"):
        runtimes_of((name,), Clock())
