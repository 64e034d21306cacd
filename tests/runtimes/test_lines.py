"""Lines of every awkward length, from a container's mouth through the runtime's file and our framing, are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import cri_runtime as follow_cri
from hostagent.discovery.containers.chosen_runtimes import docker_runtime as follow_docker
from hostagent.discovery.runtime.container import Container, ContainerState
from hostagent.hookspecs import Framing
from hostagent.process.chain import Chain
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.docker_json import DockerJsonFraming
from hostagent.process.framing.docker_local import DockerLocalFraming
from tests.process.reading import bare, whole
from tests.runtimes.cri_engine import CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.runtimes.picture import Picture

FRAMINGS: dict[str, type[Framing]] = {
    "docker-json": DockerJsonFraming,
    "docker-local": DockerLocalFraming,
    "cri": CriFraming,
}
LENGTHS = (1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1024 * 1024)
# Each line is its own letter, so that parts of two lines can't be taken for each other.
SCRIPT = "".join(
    f"head -c {length} /dev/zero | tr '\\0' {letter}; echo; " for length, letter in zip(LENGTHS, "abcde", strict=True)
)
EXPECTED = [letter * length for length, letter in zip(LENGTHS, "abcde", strict=True)]
SYSLOG = {"syslog-address": "udp://127.0.0.1:5140"}


def lines_of(container: Container) -> list[str]:
    chain = Chain(framing=FRAMINGS[container.log_format](), max_line_bytes=2 * 1024 * 1024)
    records = bare(whole(chain, Path(container.log_path).read_bytes()).batches)
    assert {record["stream"] for record in records} == {"stdout"}
    assert all(record["time"].startswith("20") for record in records)
    return [record["message"] for record in records]


@NEEDS_DOCKER
@pytest.mark.parametrize("driver, options", [("json-file", {}), ("local", {}), ("syslog", SYSLOG)])
def test_docker_lines_are_whole(docker_runtime: DockerEngine, driver: str, options: dict[str, str]) -> None:
    with Picture.of(follow_docker(str(docker_runtime.socket), Clock())) as picture:
        container = docker_runtime.run(["sh", "-c", SCRIPT], log_driver=driver, log_options=options)
        docker_runtime.wait(container)
        found = picture.wait_for(container, lambda one: one.state is ContainerState.EXITED)
    assert lines_of(found) == EXPECTED


@NEEDS_CRI
def test_cri_lines_are_whole(cri_runtime: CriEngine) -> None:
    with Picture.of(follow_cri(str(cri_runtime.socket), Clock())) as picture:
        made = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["sh", "-c", SCRIPT])
        found = picture.wait_for(made.id, lambda one: one.state is ContainerState.EXITED)
    assert lines_of(found) == EXPECTED
