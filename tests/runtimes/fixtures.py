"""The real runtimes as pytest fixtures: started once a session, left empty after every test.

Another folder's tests take them by importing the fixtures into their conftest, and mark themselves with `NEEDS_DOCKER`
or `NEEDS_CRI`, so that a machine without the programs skips them with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtimes.cri_engine import CriEngine
from tests.runtimes.docker_engine import DockerEngine

NEEDS_DOCKER = pytest.mark.requires(root=True, tools=("dockerd", "containerd", "runc", "busybox"))
NEEDS_CRI = pytest.mark.requires(root=True, tools=("containerd", "ctr", "runc", "busybox"), modules=("grpc",))


@pytest.fixture(scope="session")
def docker_session() -> Iterator[DockerEngine]:
    with DockerEngine.started() as engine:
        yield engine


@pytest.fixture
def docker_runtime(docker_session: DockerEngine) -> Iterator[DockerEngine]:
    yield docker_session
    docker_session.remove_all()


@pytest.fixture(scope="session")
def cri_session() -> Iterator[CriEngine]:
    with CriEngine.started() as engine:
        yield engine


@pytest.fixture
def cri_runtime(cri_session: CriEngine) -> Iterator[CriEngine]:
    yield cri_session
    cri_session.remove_all()
