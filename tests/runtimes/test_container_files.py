"""Logs that are files inside real containers: found where they lie, delivered once, tagged, and no others."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runtimes.collection import Collection
from tests.runtimes.cri_engine import CriContainer, CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

QUICKLY = {"refresh_interval": "200ms", "stdout": "none"}
ENDLESS = "trap exit TERM; while :; do sleep 0.1; done"


def docker_url(docker: DockerEngine) -> str:
    return f"docker://{docker.socket}"


def by_path(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record["path"], []).append(record["message"])
    return found


def wait_for_paths(collection: Collection, container: str, expected: Mapping[str, list[str]]) -> None:
    wait_for(
        lambda: sum(map(len, by_path(collection.records()[container]).values())) >= sum(map(len, expected.values())),
        "every record of every file",
        so_far=lambda: f"{by_path(collection.records()[container])} {collection.agent.tail()}",
    )
    assert by_path(collection.records()[container]) == expected


def wait_for_messages(collection: Collection, expected: list[str]) -> None:
    """Wait for so many records of all containers together; they must be these."""

    def came() -> list[str]:
        return sorted(one["message"] for records in collection.records().values() for one in records)

    wait_for(lambda: len(came()) >= len(expected), f"{expected}", so_far=lambda: f"{came()} {collection.agent.tail()}")
    assert came() == sorted(expected)


def wait_for_owner(collection: Collection, container: str) -> None:
    """Until the agent knows that this container alone has the file: it learns of removals from the runtime."""

    def owners() -> set[str]:
        files = json.loads(collection.agent.get("/files")[1])["files"]
        return {file["tags"]["container_id"] for file in files}

    wait_for(lambda: owners() == {container}, "the file to be its own", so_far=lambda: str(owners()))


@NEEDS_DOCKER
def test_files_in_every_place_a_container_has(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    script = f"""
        mkdir -p /var/log/app /data/logs
        ln -s /data/logs /logs
        echo tree > /var/log/app/a.log
        echo volume > /data/logs/b.log
        echo bind > /bound/c.log
        echo memory > /run/d.log
        echo list > /e.log
        {ENDLESS}
    """
    (tmp_path / "bound").mkdir()
    with Collection.of(tmp_path, docker_url(docker_runtime), **QUICKLY) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        container = docker_runtime.run(
            ["sh", "-c", script],
            name="everywhere",
            env={
                "aliyun_logs_tree": "/var/log/app/*.log",
                "aliyun_logs_tree_tags": "team=shop,k8s_pod_namespace=forged",
                "aliyun_logs_link": "/logs/*.log,/bound/**/*.log",
                "aliyun_logs_memory": "/run/*.log",
                "LOG_COLLECT_FILES": "/e.log,/never/there.log",
            },
            labels={"com.docker.compose.project": "shop", "aliyun.logs.tree.target": "trees"},
            binds=["files-volume:/data", f"{tmp_path}/bound:/bound"],
            tmpfs={"/run": ""},
        )
        expected = {
            "/var/log/app/a.log": ["tree"],
            "/data/logs/b.log": ["volume"],
            "/bound/c.log": ["bind"],
            "/run/d.log": ["memory"],
            "/e.log": ["list"],
        }
        wait_for_paths(collection, container, expected)
        tree = next(one for one in collection.records()[container] if one["message"] == "tree")
        wanted = {"container_name": "everywhere", "docker_app": "shop", "team": "shop", "target": "trees"}
        assert wanted.items() <= tree.items()
        assert "k8s_pod_namespace" not in tree
        told = collection.agent.call("explain", "everywhere").stdout
        assert told.startswith("container everywhere: collected by source containers")
        assert "env LOG_COLLECT_FILES: " in told
        assert "/e.log: idle, 5 B; main " in told
        assert "the tag 'k8s_pod_namespace' is ignored" in told
        docker_runtime.execute(container, ["sh", "-c", "mkdir -p /never; echo later > /never/there.log"])
        docker_runtime.execute(container, ["sh", "-c", "mv /e.log /e.log.1; echo again > /e.log; echo end >> /e.log.1"])
        expected |= {"/never/there.log": ["later"], "/e.log": ["list", "end", "again"]}
        wait_for(lambda: len(collection.records()[container]) >= 8, "what was written later")
        found = by_path(collection.records()[container])
        assert {path: sorted(lines) for path, lines in found.items()} == {
            path: sorted(lines) for path, lines in expected.items()
        }


@pytest.fixture
def host_root() -> Iterator[str]:
    """The host's root directory, with all that is and will be mounted in it, as a pod sees it."""
    # Not below pytest's directory: the path of the engine's socket in it would be longer than a socket's may be.
    root = tempfile.mkdtemp(prefix="ha-host-")
    subprocess.run(["mount", "--rbind", "/", root], check=True)
    subprocess.run(["mount", "--make-rslave", root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", root], check=True)
        os.rmdir(root)


@NEEDS_DOCKER
def test_an_agent_that_sees_the_host_below_a_directory(
    docker_runtime: DockerEngine, host_root: str, tmp_path: Path
) -> None:
    script = f"echo printed; echo tree > /a.log; echo volume > /data/b.log; echo memory > /run/c.log; {ENDLESS}"
    url = f"docker://{host_root}{docker_runtime.socket}"
    with Collection.of(tmp_path, url, host_root=host_root, refresh_interval="200ms") as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        container = docker_runtime.run(
            ["sh", "-c", script],
            env={"LOG_COLLECT_FILES": "/a.log,/data/*.log,/run/*.log"},
            binds=["host-volume:/data"],
            tmpfs={"/run": ""},
        )
        wait_for_messages(collection, ["printed", "tree", "volume", "memory"])
        paths = by_path(collection.records()[container])
        assert {"/a.log", "/data/b.log", "/run/c.log"} < set(paths)
        below = {file["path"] for file in collection.agent.answer("files")["files"]}
        assert all(path.startswith(f"{host_root}/") for path in below)


@NEEDS_DOCKER
def test_a_file_survives_its_container_s_restarts(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i >> /app.log; echo $i >> /data/app.log; done; sleep 0.2"
    with Collection.of(tmp_path, docker_url(docker_runtime), **QUICKLY) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        container = docker_runtime.run(
            ["sh", "-c", script], env={"LOG_COLLECT_FILES": "/app.log,/data/*.log"}, binds=["restart-volume:/data"]
        )
        for _ in range(7):
            docker_runtime.wait(container)
            docker_runtime.act(container, "restart", t=0)
        docker_runtime.wait(container)
        lines = [str(number) for number in range(1, 10)] * 8
        wait_for_paths(collection, container, {"/app.log": lines, "/data/app.log": lines})
        collection.agent.stop()
        docker_runtime.act(container, "start")
        docker_runtime.wait(container)
        collection.agent.start()
        lines = [str(number) for number in range(1, 10)] * 9
        wait_for_paths(collection, container, {"/app.log": lines, "/data/app.log": lines})


@NEEDS_DOCKER
def test_a_file_written_while_the_agent_was_down(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    script = "echo one >> /app.log; echo two >> /data/app.log"
    container = docker_runtime.run(
        ["sh", "-c", script], env={"LOG_COLLECT_FILES": "/app.log,/data/*.log"}, binds=["down-volume:/data"]
    )
    docker_runtime.wait(container)
    with Collection.of(tmp_path, docker_url(docker_runtime), **QUICKLY) as collection:
        collection.agent.start()
        wait_for_paths(collection, container, {"/app.log": ["one"], "/data/app.log": ["two"]})


@NEEDS_DOCKER
def test_a_hostile_container_gives_only_its_own(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "secret.log").write_text("secret\n")
    script = f"""
        mkdir -p /logs /data/logs /etc {secrets}
        for d in /logs /data/logs; do
            ln -s {secrets}/secret.log $d/file.log
            ln -s {secrets} $d/dir
            ln -s ../../../../../../../../{secrets}/secret.log $d/up.log
            ln -s /proc/1/root{secrets}/secret.log $d/magic.log
            mkfifo $d/pipe.log
            mknod $d/zero.log c 1 5
            mkdir $d/directory.log
        done
        echo own > {secrets}/secret.log
        echo own > /logs/own.log
        echo own > /data/logs/own.log
        {ENDLESS}
    """
    declared = [
        f"{directory}/{path}" for directory in ("/logs", "/data/logs") for path in ("*.log", "dir/*", "**/*.log")
    ]
    env = {
        "LOG_COLLECT_FILES": ",".join(declared),
        "aliyun_logs_a": f"{secrets}/secret.log,/proc/1/root{secrets}/secret.log,/proc/1/environ,/etc/shadow",
        "aliyun_logs_b": "/../../etc/shadow",
        "aliyun_logs_c": "x" * 100_000,
        "aliyun_logs_d": "stdout",
        "aliyun_logs_d_format": "regexp",
        "aliyun_logs_d_format_pattern": "(a+)+$",
        "aliyun_logs_own": "/logs/own.log",
    }
    labels = {"io.kubernetes.pod.namespace": "victim", "aliyun.logs.own.tags": "container_id=victim,image=victim"}
    with Collection.of(tmp_path, docker_url(docker_runtime), **QUICKLY) as collection:
        collection.agent.start()
        container = docker_runtime.run(
            ["sh", "-c", script],
            env=env,
            labels=labels,
            binds=["hostile-volume:/data"],
        )
        good = docker_runtime.run(["sh", "-c", "echo good > /good.log"], env={"LOG_COLLECT_FILES": "/good.log"})
        wait_for_paths(collection, good, {"/good.log": ["good"]})
        wait_for(lambda: "/data/logs/own.log" in by_path(collection.records()[container]), "its own file")
        again = docker_runtime.run(["sh", "-c", "echo good > /good.log"], env={"LOG_COLLECT_FILES": "/good.log"})
        wait_for_paths(collection, again, {"/good.log": ["good"]})
        records = collection.records()
    assert set(records) == {container, good, again}
    assert {record["message"] for record in records[container]} == {"own"}
    assert not any("victim" in json.dumps(record) for record in records[container])


@NEEDS_DOCKER
def test_three_sources_route_three_ways(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    def source(route: str, **filters: object) -> dict[str, object]:
        return {"type": "containers", "runtimes": [docker_url(docker_runtime)], "fields": {"route": route}, **filters}

    with Backend(tmp_path / "backend") as backend:
        sources = {
            "pre": source("pre", include={"env": {"Env": "Pre"}}, exclude={"env": {"APP": "APP1"}}),
            "app1": source("app1", include={"env": {"APP": "APP1"}}),
            "rest": source("rest", exclude={"env": {"Env": "Pre", "APP": "APP1"}}),
        }
        outputs = {"main": {"type": "http", "url": backend.url(), "block": {"max_wait": "100ms"}}}
        with Agent(tmp_path / "agent", {"sources": sources, "outputs": outputs}) as agent:
            agent.start()
            environments: list[dict[str, str]] = [{"Env": "Pre"}, {"APP": "APP1"}, {"Env": "Pre", "APP": "APP1"}, {}]
            for env in environments:
                docker_runtime.run(["echo", json.dumps(env)], env=env)
            came: list[tuple[str, str]] = []

            def all_came() -> bool:
                came.extend((one["message"], one["route"]) for new in backend.new_arrivals() for one in new.records())
                return len(came) >= len(environments)

            wait_for(all_came, "a record of every container", so_far=agent.tail)
    expected = [
        ({"Env": "Pre"}, "pre"),
        ({"APP": "APP1"}, "app1"),
        ({"Env": "Pre", "APP": "APP1"}, "app1"),
        ({}, "rest"),
    ]
    assert sorted(came) == sorted((json.dumps(env), route) for env, route in expected)


@NEEDS_CRI
def test_files_of_a_pod_by_its_annotation_and_its_environment(cri_runtime: CriEngine, tmp_path: Path) -> None:
    empty_dir = tmp_path / "empty-dir"
    empty_dir.mkdir()
    logs = "- {name: shared, path: /shared/*.log, container: app, tags: {team: shop}}\n- {name: bad, path: relative}"
    forged = json.dumps({"message": "json", "k8s_pod_namespace": "victim"})
    script = f"echo shared > /shared/a.log; echo own > /own.log; touch /shared/b.txt; echo '{forged}' > /j; {ENDLESS}"
    with Collection.of(tmp_path, f"cri://{cri_runtime.socket}", node_name="node-1", **QUICKLY) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        pod = cri_runtime.run_pod("web-0", namespace="shop", annotations={"hostagent.io/logs": logs})
        app = cri_runtime.run(
            pod,
            "app",
            ["sh", "-c", script],
            env={"aliyun_logs_own": "/own.log", "aliyun_logs_json": "/j", "aliyun_logs_json_format": "json"},
            labels={"aliyun.logs.own.tags": "k8s_pod=forged"},
            mounts={str(empty_dir): "/shared"},
        )
        other = cri_runtime.run(pod, "other", ["sh", "-c", ENDLESS], mounts={str(empty_dir): "/shared"})
        wait_for_paths(collection, app.id, {"/shared/a.log": ["shared"], "/own.log": ["own"], "/j": ["json"]})
        records = collection.records()
        for record in records[app.id]:
            assert (record["k8s_pod"], record["k8s_pod_namespace"], record["k8s_node_name"]) == (
                "web-0",
                "shop",
                "node-1",
            )
            assert record["k8s_container_name"] == "app"
        assert {record.get("team") for record in records[app.id]} == {"shop", None}
        assert other.id not in records
        assert "relative" in collection.agent.call("status").stdout


@NEEDS_CRI
def test_a_volume_outlives_the_containers_that_share_it(cri_runtime: CriEngine, tmp_path: Path) -> None:
    empty_dir = tmp_path / "empty-dir"
    empty_dir.mkdir()
    env = {"aliyun_logs_app": "/shared/app.log"}

    def run(attempt: int) -> CriContainer:
        script = f"for i in 1 2 3; do echo {attempt}.$i >> /shared/app.log; done; {ENDLESS}"
        return cri_runtime.run(pod, "app", ["sh", "-c", script], env=env, mounts={str(empty_dir): "/shared"})

    with Collection.of(tmp_path, f"cri://{cri_runtime.socket}", **QUICKLY) as collection:
        collection.agent.start()
        collection.agent.wait_ready()
        pod = cri_runtime.run_pod("web-0", namespace="shop")
        expected: list[str] = []
        before: CriContainer | None = None
        for attempt in range(4):
            container = run(attempt)
            expected += [f"{attempt}.{number}" for number in (1, 2, 3)]
            wait_for_messages(collection, expected)
            if before is not None:
                cri_runtime.remove_container(before.id)
                wait_for_owner(collection, container.id)
                cri_runtime.execute(container, ["sh", "-c", f"echo {attempt}.more >> /shared/app.log"])
                expected.append(f"{attempt}.more")
                wait_for_messages(collection, expected)
                assert f"{attempt}.more" in collection.messages(container.id)
            cri_runtime.stop_container(container)
            before = container


@NEEDS_DOCKER
def test_a_volume_s_files_are_read_once_whoever_asks_for_them(docker_runtime: DockerEngine, tmp_path: Path) -> None:
    def run(paths: str) -> str:
        env = {"LOG_COLLECT_FILES": paths}
        return docker_runtime.run(["sh", "-c", ENDLESS], env=env, binds=["shared-volume:/data"])

    with Collection.of(tmp_path, docker_url(docker_runtime), **QUICKLY) as collection:
        collection.agent.start()
        first, second, third = run("/data/*.log"), run("/data/app.log"), run("/data/*.log")
        write = ["sh", "-c", "for i in 1 2 3; do echo $i >> /data/app.log; done"]
        docker_runtime.execute(first, write)
        wait_for_messages(collection, ["1", "2", "3"])
        docker_runtime.remove(first)
        docker_runtime.execute(second, write)
        wait_for_messages(collection, ["1", "2", "3"] * 2)
        docker_runtime.remove(third)
        wait_for_owner(collection, second)
        docker_runtime.execute(second, write)
        wait_for_messages(collection, ["1", "2", "3"] * 3)
        assert "3" in collection.messages(second)
