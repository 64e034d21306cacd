"""Containers come, restart, rotate and go while an agent runs; what they print arrives once, in order, tagged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runtimes.collection import Collection
from tests.runtimes.cri_engine import CriContainer, CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.runtimes.processes import wait_until
from tests.runtimes.socket_proxy import SocketProxy

# How many containers a test of many makes; the figures for a release are taken with 500.
MANY = int(os.environ.get("HOSTAGENT_MANY_CONTAINERS", "60"))
AT_A_TIME = 8
# Prints its lines as fast as it can, twenty at a time, until it is told to end.
TALK = "n=0; while [ ! -e /end ]; do n=$((n+1)); echo line $n; [ $((n%20)) != 0 ] || sleep 0.01; done; echo end"

pytestmark = pytest.mark.timeout(600)


def docker_url(docker: DockerEngine) -> str:
    return f"docker://{docker.socket}"


def cri_url(engine: CriEngine) -> str:
    return f"cri://{engine.socket}"


def printed_by(docker: DockerEngine, container: str) -> list[str]:
    """What Docker itself says the container has printed."""
    raw: bytes = docker.call("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1}, parse=False)
    lines = []
    while raw:
        size = int.from_bytes(raw[4:8], "big")
        lines += raw[8 : 8 + size].decode().splitlines()
        raw = raw[8 + size :]
    return lines


@NEEDS_DOCKER
def test_every_line_of_containers_that_are_removed_at_once(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    def live(number: int) -> tuple[str, list[str]]:
        labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": f"s{number}"}
        container = docker_runtime.run(["echo", f"line {number}"], name=f"c{number}", labels=labels, auto_remove=True)
        docker_runtime.wait(container)
        return container, [f"line {number}"]

    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            expected = dict(pool.map(live, range(MANY)))
        collection.wait_for(expected)
        for container, (line,) in expected.items():
            (record,) = collection.records()[container]
            number = line.removeprefix("line ")
            assert record["container_name"] == f"c{number}"
            assert record["image"] == "local/busybox:1"
            assert (record["docker_app"], record["docker_service"]) == ("shop", f"s{number}")
            assert record["stream"] == "stdout"
        assert set(collection.records()) == set(expected)


@NEEDS_DOCKER
def test_containers_that_start_while_the_agent_does(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    def start(number: int) -> tuple[str, list[str]]:
        return docker_runtime.run(["echo", f"line {number}"]), [f"line {number}"]

    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection, ThreadPoolExecutor(AT_A_TIME) as pool:
        coming = [pool.submit(start, number) for number in range(MANY)]
        wait_until(lambda: sum(one.done() for one in coming) > MANY // 4, "the first containers")
        collection.agent.start()
        collection.wait_for(dict(one.result() for one in coming))


@NEEDS_DOCKER
def test_containers_that_come_and_end_while_the_events_are_cut(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    def run(number: int) -> tuple[str, list[str]]:
        return docker_runtime.run(["echo", f"line {number}"]), [f"line {number}"]

    with (
        SocketProxy.before(docker_runtime.socket, tmp_path / "proxy.sock") as proxy,
        Collection.of(tmp_path, f"docker://{proxy.path}") as collection,
    ):
        collection.agent.start()
        expected = dict([run(0)])
        collection.wait_for(expected)
        proxy.cut()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            expected |= dict(pool.map(run, range(1, 20)))
        for container in list(expected)[:5]:
            docker_runtime.wait(container)
            docker_runtime.act(container, "restart", t=0)
            docker_runtime.wait(container)
            expected[container] *= 2
        proxy.restore()
        expected |= dict([run(20)])
        collection.wait_for(expected)


@NEEDS_DOCKER
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_was_printed_while_the_agent_was_down(docker_runtime: DockerEngine, tmp_path: Path, how: str) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        talker = docker_runtime.run(["sh", "-c", TALK])
        early = docker_runtime.run(["echo", "early"])
        collection.wait_for({early: ["early"]})
        wait_until(lambda: len(collection.messages(talker)) > 100, "lines of the talker")
        collection.agent.stop() if how == "stop" else collection.agent.kill()
        ended = docker_runtime.run(["echo", "ended meanwhile"])
        docker_runtime.wait(ended)
        docker_runtime.execute(talker, ["touch", "/end"])
        docker_runtime.wait(talker)
        collection.agent.start()
        collection.wait_for({talker: printed_by(docker_runtime, talker), ended: ["ended meanwhile"], early: ["early"]})


@NEEDS_DOCKER
def test_restarts_renames_and_pauses_under_load(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        container = docker_runtime.run(["sh", "-c", TALK], name="first-name")
        for number in range(20):
            wait_until(lambda n=number: len(collection.messages(container)) > 50 * n, "more lines")  # type: ignore[misc]
            docker_runtime.act(container, "restart", t=0)
            if number == 10:
                docker_runtime.act(container, "rename", name="second-name")
                docker_runtime.act(container, "pause")
                docker_runtime.act(container, "unpause")
        docker_runtime.execute(container, ["touch", "/end"])
        docker_runtime.wait(container)
        collection.wait_for({container: printed_by(docker_runtime, container)})
        names = [record["container_name"] for record in collection.records()[container]]
        assert names[0] == "first-name"
        assert names[-1] == "second-name"


@NEEDS_DOCKER
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_docker_rotating_many_times_a_second(docker_runtime: DockerEngine, tmp_path: Path, driver: str) -> None:
    lines = 100_000
    script = f"n=0; while [ $n -lt {lines} ]; do seq $((n+1)) $((n+=1000)); usleep 10000; done"
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        options = {"max-size": "500k", "max-file": "5", "compress": "false"}
        container = docker_runtime.run(["sh", "-c", script], log_driver=driver, log_options=options)
        docker_runtime.wait(container)
        # Sooner than the slow scan that would find anything left lying.
        wait_until(lambda: len(collection.messages(container)) >= lines, "every line", 30.0)
        assert sorted(map(int, collection.messages(container))) == list(range(1, lines + 1))


@NEEDS_CRI
def test_pods_that_come_and_go_are_collected_and_tagged(cri_runtime: CriEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, cri_url(cri_runtime), node_name="node-7") as collection:
        collection.agent.start()
        collection.agent.wait_ready()

        def live(number: int) -> CriContainer:
            labels = {"io.kubernetes.pod.namespace": "kube-system"}
            pod = cri_runtime.run_pod(f"web-{number}", namespace="shop")
            made = cri_runtime.run(pod, "nginx", ["echo", f"line {number}"], labels=labels)
            wait_until(lambda: cri_runtime.exited(made), "end of the container")
            cri_runtime.remove_pod(pod.id)
            return made

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(live, range(20)))
        collection.wait_for({one.id: [f"line {number}"] for number, one in enumerate(made)})
        for number, one in enumerate(made):
            (record,) = collection.records()[one.id]
            assert record["k8s_pod"] == f"web-{number}"
            assert record["k8s_pod_namespace"] == "shop"
            assert record["k8s_pod_uid"] == one.pod.config.metadata.uid
            assert record["k8s_node_name"] == "node-7"
            assert record["k8s_container_name"] == "nginx"


@NEEDS_CRI
def test_a_log_that_is_rotated_under_load(cri_runtime: CriEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, cri_url(cri_runtime)) as collection:
        collection.agent.start()
        made = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["sh", "-c", TALK])
        rotated = []
        for number in range(5):
            wait_until(lambda n=number: len(collection.messages(made.id)) > 200 * n, "more lines")  # type: ignore[misc]
            rotated.append(cri_runtime.rotate_log(made, f"20260101-00000{number}"))
        cri_runtime.execute(made, ["touch", "/end"])
        wait_until(lambda: cri_runtime.exited(made), "end of the container")
        written = b"".join(path.read_bytes() for path in (*rotated, made.log_path)).decode().splitlines()
        assert len(written) > 800
        collection.wait_for({made.id: [line.split(" ", 3)[3] for line in written]})


@pytest.fixture
def seen_host(tmp_path: Path) -> Iterator[Path]:
    """The machine's files below another directory, without what is mounted into them: as a pod may see them."""
    point = tmp_path / "host"
    point.mkdir()
    subprocess.run(["mount", "--bind", "/", str(point)], check=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


@NEEDS_DOCKER
def test_an_agent_that_sees_the_host_below_another_directory(
    docker_runtime: DockerEngine, seen_host: Path, tmp_path: Path
) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime), host_root=str(seen_host)) as collection:
        before = docker_runtime.run(["echo", "before"])
        docker_runtime.wait(before)
        collection.agent.start()
        collection.wait_for({before: ["before"]})
        brief = [docker_runtime.run(["echo", "brief"], auto_remove=True) for _ in range(5)]
        collection.wait_for({container: ["brief"] for container in brief})


@NEEDS_CRI
@NEEDS_DOCKER
def test_both_runtimes_at_once(cri_runtime: CriEngine, docker_runtime: DockerEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, cri_url(cri_runtime), docker_url(docker_runtime)) as collection:
        collection.agent.start()
        in_pod = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["echo", "from a pod"])
        in_docker = docker_runtime.run(["echo", "from docker"], log_driver="local")
        collection.wait_for({in_pod.id: ["from a pod"], in_docker: ["from docker"]})
