"""Docker's containers as its discovery publishes them, from a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import docker_runtime as follow_docker
from hostagent.discovery.runtime.container import ContainerState, Mount
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_DOCKER
from tests.runtimes.picture import Picture
from tests.runtimes.socket_proxy import SocketProxy
from tests.support.waiting import wait_for

pytestmark = NEEDS_DOCKER
# Faults must be found by their own signs, not by the next routine look.
NEVER_S = 3600.0


@pytest.fixture
def picture(docker_runtime: DockerEngine) -> Iterator[Picture]:
    with Picture.of(follow_docker(str(docker_runtime.socket), Clock(), NEVER_S)) as picture:
        yield picture


@pytest.fixture
def proxy(docker_runtime: DockerEngine) -> Iterator[SocketProxy]:
    with SocketProxy.before(docker_runtime.socket, docker_runtime.base / "proxy.sock") as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: SocketProxy) -> Iterator[Picture]:
    with Picture.of(follow_docker(str(proxy.path), Clock(), NEVER_S)) as picture:
        yield picture


def test_a_container_is_described_whole(docker_runtime: DockerEngine, picture: Picture, tmp_path: Path) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "odd": "ü\n\t\0"}
    container = docker_runtime.run(
        ["sleep", "1000"],
        name="shop-web-1",
        env={"A": "b=c", "EMPTY": ""},
        labels=labels,
        binds=[f"{tmp_path}:/bound:ro", "box:/volume"],
        tmpfs={"/scratch": ""},
    )
    found = picture.wait_for(container, lambda one: one.state == ContainerState.RUNNING)
    facts = docker_runtime.inspect(container)
    assert found.name == "shop-web-1"
    assert found.runtime == "docker"
    assert found.image == "local/busybox:1"
    assert found.env["A"] == "b=c"
    assert found.env["EMPTY"] == ""
    assert found.labels == labels
    assert found.pod is None
    assert found.pid == facts["State"]["Pid"]
    assert (found.log_format, found.log_path) == ("docker-json", facts["LogPath"])
    assert set(found.mounts) == {
        Mount("/bound", str(tmp_path), "bind", read_only=True),
        Mount("/volume", f"{docker_runtime.data_root}/volumes/box/_data", "volume"),
        Mount("/scratch", "", "tmpfs"),
    }
    assert (Path(found.roots[0]) / "bin/busybox").exists()
    assert found.exit_code is None


def test_a_created_container_names_the_log_it_is_going_to_have(docker_runtime: DockerEngine, picture: Picture) -> None:
    container = docker_runtime.create(["echo", "hello"])
    before = picture.wait_for(container)
    assert before.state == ContainerState.CREATED
    assert not Path(before.log_path).exists()
    docker_runtime.act(container, "start")
    after = picture.wait_for(container, lambda one: one.state == ContainerState.EXITED)
    assert after.exit_code == 0
    assert json.loads(Path(before.log_path).read_text())["log"] == "hello\n"


def test_changes_of_a_container_are_followed(docker_runtime: DockerEngine, picture: Picture) -> None:
    container = docker_runtime.run(["sleep", "1000"], name="before")
    first_pid = picture.wait_for(container, lambda one: one.state == ContainerState.RUNNING).pid
    docker_runtime.act(container, "pause")
    picture.wait_for(container, lambda one: one.state == ContainerState.PAUSED)
    docker_runtime.act(container, "unpause")
    docker_runtime.act(container, "rename", name="after")
    picture.wait_for(container, lambda one: one.name == "after" and one.state == ContainerState.RUNNING)
    docker_runtime.act(container, "restart", t=0)
    picture.wait_for(container, lambda one: one.state == ContainerState.RUNNING and one.pid not in (0, first_pid))
    docker_runtime.act(container, "kill")
    assert picture.wait_for(container, lambda one: one.state == ContainerState.EXITED).exit_code == 137
    docker_runtime.remove(container)
    picture.wait_gone(container)


def test_containers_that_live_for_milliseconds_are_all_seen(docker_runtime: DockerEngine, picture: Picture) -> None:
    def live(number: int) -> str:
        container = docker_runtime.run(["echo", str(number)], auto_remove=True)
        docker_runtime.wait(container)
        return container

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(live, range(40)))
    wait_for(lambda: not picture.now, "removal of every container")
    assert picture.seen() == made
    picture.wait_no_notices()


def test_containers_that_ended_before_the_start_are_found(docker_runtime: DockerEngine) -> None:
    container = docker_runtime.run(["sh", "-c", "exit 3"])
    docker_runtime.wait(container)
    with Picture.of(follow_docker(str(docker_runtime.socket), Clock(), NEVER_S)) as picture:
        found = picture.wait_for(container)
        assert (found.state, found.exit_code) == (ContainerState.EXITED, 3)
        wait_for(lambda: picture.listed is not None, "the end of the list")
        assert picture.listed == frozenset({container})


def test_containers_that_start_together_with_the_agent_are_found(docker_runtime: DockerEngine) -> None:
    with ThreadPoolExecutor(4) as pool:
        coming = [pool.submit(docker_runtime.run, ["true"]) for _ in range(20)]
        with Picture.of(follow_docker(str(docker_runtime.socket), Clock(), NEVER_S)) as picture:
            for one in coming:
                picture.wait_for(one.result())


def test_what_happened_in_a_gap_is_made_up_for(
    docker_runtime: DockerEngine, proxy: SocketProxy, proxied: Picture
) -> None:
    removed = docker_runtime.run(["sleep", "1000"])
    restarted = docker_runtime.run(["sleep", "1000"])
    for container in (removed, restarted):
        proxied.wait_for(container, lambda one: one.state == ContainerState.RUNNING)
    pid = proxied.now[restarted].pid
    proxy.cut()
    assert "start Docker" in proxied.wait_notice("can't be reached").hint
    docker_runtime.remove(removed)
    docker_runtime.act(restarted, "restart", t=0)
    created = docker_runtime.run(["true"])
    assert removed in proxied.now
    proxy.restore()
    proxied.wait_for(created)
    proxied.wait_gone(removed)
    proxied.wait_for(restarted, lambda one: one.pid not in (0, pid))
    proxied.wait_no_notices()


def test_a_restart_of_the_engine_is_survived(docker_runtime: DockerEngine, picture: Picture) -> None:
    container = docker_runtime.run(["sleep", "1000"])
    picture.wait_for(container, lambda one: one.state == ContainerState.RUNNING)
    docker_runtime.dockerd.kill()
    docker_runtime.dockerd.start()
    later = docker_runtime.run(["true"])
    picture.wait_for(later)
    picture.wait_no_notices()
    assert [kind for kind, one in picture.changes if one.id == container].count("added") == 1


def test_garbage_among_the_events_is_a_gap_and_no_more(
    docker_runtime: DockerEngine, proxy: SocketProxy, proxied: Picture
) -> None:
    first = docker_runtime.run(["true"])
    proxied.wait_for(first)
    for garbage in (
        b"\xff\xfe\0" * 100,
        b"7\r\n[1,2,3\r\n",
        b"ffffffffffffff\r\n",
        b'2\r\n{}\r\n5\r\n"\xc3\x28"\n\r\n',
    ):
        proxy.say_to_clients(garbage)
        proxied.wait_for(docker_runtime.run(["true"]))
    proxied.wait_no_notices()


@pytest.mark.parametrize(
    "driver, options, words",
    [
        ("none", {}, "keeps no output"),
        ("syslog", {"syslog-address": "udp://127.0.0.1:5140", "cache-disabled": "true"}, "keeps no copy"),
    ],
)
def test_a_driver_that_leaves_no_file_is_said_to(
    docker_runtime: DockerEngine, picture: Picture, driver: str, options: dict[str, str], words: str
) -> None:
    found = picture.wait_for(docker_runtime.run(["true"], log_driver=driver, log_options=options))
    assert found.log_path == ""
    assert found.log_notice is not None
    assert words in found.log_notice.message
    assert found.log_notice.hint


def test_a_container_of_a_kubelet_is_known_by_its_name_not_its_labels(
    docker_runtime: DockerEngine, picture: Picture
) -> None:
    sandbox = docker_runtime.run(
        ["sleep", "1000"],
        name="k8s_POD_web-0_shop_1-2-3_0",
        labels={"app": "web", "annotation.hostagent.io/logs": "[]", "io.kubernetes.pod.namespace": "shop"},
    )
    container = docker_runtime.run(
        ["true"],
        name="k8s_nginx_web-0_shop_1-2-3_4",
        labels={"io.kubernetes.sandbox.id": sandbox, "io.kubernetes.pod.namespace": "kube-system"},
    )
    found = picture.wait_for(container)
    assert found.pod is not None
    assert (found.pod.name, found.pod.namespace, found.pod.uid) == ("web-0", "shop", "1-2-3")
    assert found.pod.labels == {"app": "web"}
    assert found.pod.annotations == {"hostagent.io/logs": "[]"}
    assert (found.name, found.restarts) == ("nginx", 4)
    assert sandbox not in picture.seen()


def test_another_pods_sandbox_lends_no_labels(docker_runtime: DockerEngine, picture: Picture) -> None:
    sandbox = docker_runtime.run(["sleep", "1000"], name="k8s_POD_db-0_bank_7-7-7_0", labels={"app": "db"})
    container = docker_runtime.run(
        ["true"], name="k8s_nginx_web-0_shop_1-2-3_0", labels={"io.kubernetes.sandbox.id": sandbox}
    )
    pod = picture.wait_for(container).pod
    assert pod is not None
    assert pod.labels == {}


def test_labels_alone_make_nobody_a_pod(docker_runtime: DockerEngine, picture: Picture) -> None:
    forged = {"io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.pod.name": "dns"}
    assert picture.wait_for(docker_runtime.run(["true"], labels=forged)).pod is None


def test_a_megabyte_of_labels_stops_nobody(docker_runtime: DockerEngine, picture: Picture) -> None:
    big = docker_runtime.run(["true"], labels={"big": "x" * 1_000_000})
    later = docker_runtime.run(["true"])
    assert len(picture.wait_for(big).labels["big"]) == 1_000_000
    picture.wait_for(later)
