"""Containers come, restart, rotate and go while an agent runs; what they print arrives once, in order, tagged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.runtimes.collection import Collection
from tests.runtimes.cri_engine import CriContainer, CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.runtimes.socket_proxy import SocketProxy
from tests.support.waiting import wait_for

# How many containers a test of many makes, and for how many seconds a fault or a flood lasts; the figures for a release
# are taken with 500 containers, 30 s without events and 20 s of flood.
MANY = int(os.environ.get("HOSTAGENT_MANY_CONTAINERS", "60"))
CUT_S = float(os.environ.get("HOSTAGENT_CUT_S", "1"))
FLOOD_S = int(os.environ.get("HOSTAGENT_FLOOD_S", "1"))
AT_A_TIME = 8
# Prints its lines as fast as it can, twenty at a time, until it is told to end.
TALK = "n=0; while [ ! -e /end ]; do n=$((n+1)); echo line $n; [ $((n%20)) != 0 ] || sleep 0.01; done; echo end"

pytestmark = pytest.mark.timeout(600)


def docker_url(docker: DockerEngine) -> str:
    return f"docker://{docker.socket}"


def cri_url(engine: CriEngine) -> str:
    return f"cri://{engine.socket}"


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell_to_end(engine: DockerEngine | CriEngine, container: Any) -> None:  # noqa: ANN401 - as each of them has it
    """Have a talker end. It may see the file, and be gone, before the command that makes it is: then that is killed."""
    with contextlib.suppress(RuntimeError):
        engine.execute(container, ["touch", "/end"])


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
        wait_for(lambda: sum(one.done() for one in coming) > MANY // 4, "the first containers")
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
        ends_at_s = time.monotonic() + CUT_S
        while time.monotonic() < ends_at_s or len(expected) < 20:
            made = len(expected)
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                expected |= dict(pool.map(run, range(made, made + 19)))
        for container in list(expected)[:5]:
            docker_runtime.wait(container)
            docker_runtime.act(container, "restart", t=0)
            docker_runtime.wait(container)
            expected[container] *= 2
        proxy.restore()
        expected |= dict([run(len(expected))])
        collection.wait_for(expected)
        print(f"{len(expected)} containers, events cut for {CUT_S} s at least: each line once")


@NEEDS_DOCKER
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_was_printed_while_the_agent_was_down(docker_runtime: DockerEngine, tmp_path: Path, how: str) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        talker = docker_runtime.run(["sh", "-c", TALK])
        early = docker_runtime.run(["echo", "early"])
        collection.wait_for({early: ["early"]})
        wait_for(lambda: len(collection.messages(talker)) > 100, "lines of the talker")
        collection.agent.stop() if how == "stop" else collection.agent.kill()
        ended = docker_runtime.run(["echo", "ended meanwhile"])
        docker_runtime.wait(ended)
        tell_to_end(docker_runtime, talker)
        docker_runtime.wait(talker)
        collection.agent.start()
        collection.wait_for({talker: printed_by(docker_runtime, talker), ended: ["ended meanwhile"], early: ["early"]})


@NEEDS_DOCKER
def test_restarts_renames_and_pauses_under_load(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        container = docker_runtime.run(["sh", "-c", TALK], name="first-name")
        for number in range(20):
            wait_for(lambda n=number: len(collection.messages(container)) > 50 * n, "more lines")  # type: ignore[misc]
            docker_runtime.act(container, "restart", t=0)
            if number == 10:
                docker_runtime.act(container, "rename", name="second-name")
                docker_runtime.act(container, "pause")
                docker_runtime.act(container, "unpause")
        tell_to_end(docker_runtime, container)
        docker_runtime.wait(container)
        collection.wait_for({container: printed_by(docker_runtime, container)})
        names = [record["container_name"] for record in collection.records()[container]]
        assert names[0] == "first-name"
        assert names[-1] == "second-name"


@NEEDS_DOCKER
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_docker_rotating_many_times_a_second(docker_runtime: DockerEngine, tmp_path: Path, driver: str) -> None:
    lines = 100_000 * FLOOD_S
    # At most 2000 lines each 10 ms; the engine does not get to twice 100,000 a second.
    script = f"n=0; while [ $n -lt {lines} ]; do seq $((n+1)) $((n+=2000)); usleep 10000; done"
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        # The engine deletes the oldest of them after 0.6 s: the agent must have opened it by then.
        options = {"max-size": "1m", "max-file": "3" if FLOOD_S > 1 else "5", "compress": "false"}
        began_s = time.monotonic()
        used_s = cpu_s(collection.agent.pid)
        container = docker_runtime.run(["sh", "-c", script], log_driver=driver, log_options=options)
        docker_runtime.wait(container)
        took_s = time.monotonic() - began_s
        came = [int(record["message"]) for record in collection.take_new()]

        def all_came() -> bool:
            came.extend(int(record["message"]) for record in collection.take_new())
            return len(came) >= lines

        # Sooner than the slow scan that would find anything left lying.
        wait_for(all_came, "every line")
        used_s = cpu_s(collection.agent.pid) - used_s
        assert sorted(came) == list(range(1, lines + 1))
        print(f"{driver}: {lines / took_s:.0f} lines/s for {took_s:.1f} s, {used_s / took_s:.3f} of a core")


@NEEDS_CRI
def test_pods_that_come_and_go_are_collected_and_tagged(cri_runtime: CriEngine, tmp_path: Path) -> None:
    with Collection.of(tmp_path, cri_url(cri_runtime), node_name="node-7") as collection:
        collection.agent.start()
        collection.agent.wait_ready()

        def live(number: int) -> CriContainer:
            labels = {"io.kubernetes.pod.namespace": "kube-system"}
            pod = cri_runtime.run_pod(f"web-{number}", namespace="shop")
            made = cri_runtime.run(pod, "nginx", ["echo", f"line {number}"], labels=labels)
            wait_for(lambda: cri_runtime.exited(made), "end of the container")
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
            wait_for(lambda n=number: len(collection.messages(made.id)) > 200 * n, "more lines")  # type: ignore[misc]
            rotated.append(cri_runtime.rotate_log(made, f"20260101-00000{number}"))
        tell_to_end(cri_runtime, made)
        wait_for(lambda: cri_runtime.exited(made), "end of the container")
        written = b"".join(path.read_bytes() for path in (*rotated, made.log_path)).decode().splitlines()
        assert len(written) > 800
        collection.wait_for({made.id: [line.split(" ", 3)[3] for line in written]})


@NEEDS_CRI
def test_a_container_of_a_pod_that_restarts_under_load(cri_runtime: CriEngine, tmp_path: Path) -> None:
    """The kubelet makes a new container with a log of its own each time, and removes all but the last one."""
    with Collection.of(tmp_path, cri_url(cri_runtime)) as collection:
        collection.agent.start()
        pod = cri_runtime.run_pod("web-0")
        made: list[CriContainer] = []
        expected: dict[str, list[str]] = {}
        for number in range(20):
            one = cri_runtime.run(pod, "nginx", ["sh", "-c", TALK])
            made.append(one)
            wait_for(lambda one=one: len(collection.messages(one.id)) > 50, "some lines")  # type: ignore[misc]
            cri_runtime.stop_container(one)
            expected[one.id] = [line.split(" ", 3)[3] for line in one.log_path.read_text().splitlines()]
            if number % 3 == 2:
                cri_runtime.remove_container(made[-2].id)
                made[-2].log_path.unlink()
        collection.wait_for(expected)
        counts = [collection.records()[one.id][0]["k8s_restart_count"] for one in made]
        assert counts == list(range(20))


@NEEDS_CRI
def test_long_lines_across_rotations_with_older_logs_compressed(cri_runtime: CriEngine, tmp_path: Path) -> None:
    """A line of 300 KB is 19 parts in the file; the kubelet renames, reopens, and compresses all but the newest."""
    script = """
        n=0
        while [ ! -e /end ]; do n=$((n+1)); echo $n $(head -c 300000 /dev/zero | tr '\\0' x); usleep 5000; done
        echo end
    """
    with Collection.of(tmp_path, cri_url(cri_runtime)) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        made = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["sh", "-c", script])
        rotated: list[Path] = []
        for number in range(8):
            more = len(collection.messages(made.id)) + 5
            wait_for(lambda n=more: len(collection.messages(made.id)) > n, "more lines")  # type: ignore[misc]
            rotated.append(cri_runtime.rotate_log(made, f"20260101-00000{number}"))
            if len(rotated) > 1:
                subprocess.run(["gzip", str(rotated[-2])], check=True)
        tell_to_end(cri_runtime, made)
        wait_for(lambda: cri_runtime.exited(made), "end of the container")
        wait_for(lambda: collection.messages(made.id)[-1:] == ["end"], "the last line")
        messages = collection.messages(made.id)
        assert [message.partition(" ")[0] for message in messages[:-1]] == list(map(str, range(1, len(messages))))
        assert {message.partition(" ")[2] for message in messages[:-1]} == {"x" * 300_000}


@NEEDS_CRI
def test_pods_whose_logs_outlive_them(cri_runtime: CriEngine, tmp_path: Path) -> None:
    options = {"pod_logs": str(cri_runtime.log_root), "refresh_interval": "200ms", "node_name": "node-7"}
    with Collection.of(tmp_path, cri_url(cri_runtime), **options) as collection:

        def live(pod_name: str) -> CriContainer:
            pod = cri_runtime.run_pod(pod_name, namespace="shop")
            made = cri_runtime.run(pod, "nginx", ["echo", pod_name])
            wait_for(lambda: cri_runtime.exited(made), "end of the container")
            return made

        collection.agent.start()
        collection.agent.wait_ready()
        seen, half_seen = live("seen"), live("half-seen")
        collection.wait_for({seen.id: ["seen"], half_seen.id: ["half-seen"]})
        cri_runtime.remove_pod(seen.pod.id)
        collection.agent.stop()
        unseen = live("unseen")
        for one in (half_seen, unseen):
            cri_runtime.remove_pod(one.pod.id)
        with half_seen.log_path.open("a") as log:
            log.write("2026-01-01T00:00:00.1Z stdout F more\n")
        by_path = f"{unseen.pod.config.metadata.uid}/nginx/0"
        expected = {seen.id: ["seen"], half_seen.id: ["half-seen", "more"], by_path: ["unseen"]}
        for _ in range(2):
            collection.agent.start()
            collection.agent.wait_ready()
            collection.wait_for(expected)
            told = collection.agent.call("explain", "shop/unseen").stdout
            assert "collected by source containers" in told
            collection.agent.stop()
        # The runtime is shared, and other tests' pods have left logs, too.
        arrived = collection.records()
        assert {key: len(arrived[key]) for key in expected} == {key: len(lines) for key, lines in expected.items()}
        (record,) = collection.records()[by_path]
        assert (record["k8s_pod"], record["k8s_pod_namespace"], record["k8s_node_name"]) == ("unseen", "shop", "node-7")
        assert record["k8s_pod_uid"] == unseen.pod.config.metadata.uid
        assert record["k8s_container_name"] == "nginx"


@NEEDS_DOCKER
def test_a_container_that_was_removed_while_the_agent_was_down_is_in_the_ledger(
    docker_runtime: DockerEngine, tmp_path: Path
) -> None:
    with Collection.of(tmp_path, docker_url(docker_runtime)) as collection:
        collection.agent.start()
        gone, stays = docker_runtime.run(["echo", "read"]), docker_runtime.run(["echo", "stays"])
        collection.wait_for({gone: ["read"], stays: ["stays"]})
        path = docker_runtime.inspect(gone)["LogPath"]
        collection.agent.stop()
        docker_runtime.remove(gone)
        collection.agent.start()
        collection.agent.wait_ready()
        database = f"file:{collection.agent.directory}/state/checkpoint.db?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True)) as ledger:
            query = "select cast(path as text), reason from losses"
            wait_for(lambda: ledger.execute(query).fetchall() == [(path, "deleted")], "the loss in the ledger")


@NEEDS_DOCKER
def test_how_containers_ended_arrives_once(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    """With a source that joins lines, too: the records about containers are each a line of their own."""
    with Collection.of(tmp_path, docker_url(docker_runtime), facts=True, multiline={"start": "^x"}) as collection:

        def ends(container: str) -> list[tuple[object, ...]]:
            records = [one for one in collection.records()[container] if "event" in one]
            return [(one["event"], one["exit_code"], one["oom_killed"], one["container_name"]) for one in records]

        collection.agent.start()
        collection.agent.wait_ready()
        failed = docker_runtime.run(["sh", "-c", "exit 3"], name="failed")
        wait_for(lambda: ends(failed) == [("exited", 3, False, "failed")], "the end of a container")
        docker_runtime.act(failed, "start")
        wait_for(lambda: len(ends(failed)) == 2, "its second end")
        collection.agent.kill()
        meanwhile = docker_runtime.run(["true"], name="meanwhile")
        docker_runtime.wait(meanwhile)
        collection.agent.start()
        wait_for(lambda: ends(meanwhile) == [("exited", 0, False, "meanwhile")], "what ended while it was down")
        last = docker_runtime.run(["sh", "-c", "kill -9 $$"], name="last")
        wait_for(lambda: len(ends(last)) == 1, "the last end")
        assert len(ends(failed)) == 2
        assert len(ends(meanwhile)) == 1


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
