"""Logs that pods left in the kubelet's directory, and whose they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hostagent.discovery.containers.filters import Filter
from hostagent.discovery.containers.left_logs import LeftLogs
from hostagent.discovery.runtime.container import Container, ContainerState, Pod
from hostagent.model import Target
from tests.discovery.test_containers import running
from tests.support.waiting import wait_for

LONG_AGO_NS = 10**18
NOW_NS = 2 * 10**18


def put(root: Path, name: str, changed_ns: int = LONG_AGO_NS) -> str:
    path = root / "pods" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("2026-01-01T00:00:00Z stdout F line\n")
    os.utime(path, ns=(changed_ns, changed_ns))
    return f"/pods/{name}"


def logs(root: Path) -> LeftLogs:
    return LeftLogs(str(root), "/pods", NOW_NS)


def test_a_log_says_whose_it_was(tmp_path: Path) -> None:
    path = put(tmp_path, "shop_web-0_1-2-3/nginx/4.log")
    (found,) = logs(tmp_path).look(set()).values()
    assert found.pod == Pod(name="web-0", namespace="shop", uid="1-2-3")
    assert (found.name, found.restarts, found.log_path, found.log_format) == ("nginx", 4, path, "cri")
    assert found.state is ContainerState.EXITED
    assert found.id == "1-2-3/nginx/4"


def test_logs_of_known_containers_are_not_left(tmp_path: Path) -> None:
    path = put(tmp_path, "shop_web-0_1-2-3/nginx/4.log")
    assert logs(tmp_path).look({path}) == {}


@pytest.mark.parametrize(
    "name",
    ["shop_web-0/nginx/0.log", "a_b_c_d/nginx/0.log", "shop_web-0_1/nginx/0.log.20260101", "shop_web-0_1/nginx/x.log"],
)
def test_other_files_are_nobodys(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert logs(tmp_path).look(set()) == {}


def test_links_are_left_alone(tmp_path: Path) -> None:
    """Under Docker the kubelet links to the engine's files; and nobody's link leads out of the directory."""
    (tmp_path / "secret.log").write_text("secret\n")
    log = tmp_path / put(tmp_path, "shop_web-0_1/nginx/0.log").lstrip("/")
    log.unlink()
    log.symlink_to(tmp_path / "secret.log")
    (tmp_path / "pods" / "shop_web-1_2").symlink_to(log.parent.parent)
    assert logs(tmp_path).look(set()) == {}


def test_a_new_log_may_be_one_of_a_container_that_is_not_known_yet(tmp_path: Path) -> None:
    path = put(tmp_path, "shop_web-0_1/nginx/0.log", NOW_NS + 1)
    left = logs(tmp_path)
    assert left.look(set()) == {}
    assert set(left.look(set())) == {path}


def pod_container(path: str, state: ContainerState = ContainerState.EXITED) -> Container:
    return Container(
        id="c" * 64,
        name="nginx",
        runtime="cri",
        image="nginx:1",
        state=state,
        pod=Pod(name="web-0", namespace="shop", uid="1"),
        log_path=path,
        log_format="cri",
    )


def only(targets: dict[str, Target]) -> Target:
    (target,) = targets.values()
    return target


def test_a_log_that_outlives_its_container_is_followed_until_it_is_deleted(tmp_path: Path) -> None:
    path = put(tmp_path, "shop_web-0_1/nginx/0.log")
    log = tmp_path / path.lstrip("/")
    with running(host_root=str(tmp_path), pod_logs="/pods", refresh_interval_s=0.05) as source:
        source.say("added", pod_container(path, ContainerState.RUNNING))
        source.say("listed")
        source.published(2)
        before = only(source.targets())
        source.say("removed", pod_container(path, ContainerState.RUNNING))
        wait_for(lambda: not source.discovery.explain("web-0")[0].steps[0].startswith("running"), "the removal")
        assert only(source.targets()) == before
        log.unlink()
        wait_for(lambda: not source.targets(), "the end of the target")


def test_a_log_that_was_left_goes_over_to_its_container(tmp_path: Path) -> None:
    """The runtime's socket came back with what it knew."""
    path = put(tmp_path, "shop_web-0_1/nginx/0.log")
    with running(host_root=str(tmp_path), pod_logs="/pods", refresh_interval_s=0.05) as source:
        source.say("listed")
        source.published(2)
        assert source.changes[1].kind == "listed"
        assert only(source.targets()).tags["container_id"] == "1/nginx/0"
        source.say("added", pod_container(path, ContainerState.RUNNING))
        wait_for(lambda: only(source.targets()).tags["container_id"] == "c" * 64, "the runtime's own tags")
        assert len(source.discovery.explain("web-0")) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"stdout": "declared"},
        {"stdout": "none"},
        {"include": {"env": {"A": "b"}}},
        {"exclude": {"k8s_labels": {"A": "b"}}},
        {"include": {"namespace": ("other",)}},
    ],
)
def test_a_log_that_may_be_none_of_the_sources_is_left_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    built: dict[str, Any] = {
        key: Filter(**value) if isinstance(value, dict) else value for key, value in options.items()
    }
    put(tmp_path, "shop_web-0_1/nginx/0.log")
    with running(host_root=str(tmp_path), pod_logs="/pods", refresh_interval_s=0.05, **built) as source:
        source.say("listed")
        assert [change.kind for change in source.published(1)] == ["listed"]
