"""The private runtimes themselves: they do what the other tests rely on, and leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.runtimes.cri_engine import CriEngine
from tests.runtimes.docker_engine import DockerEngine
from tests.runtimes.fixtures import NEEDS_CRI, NEEDS_DOCKER
from tests.runtimes.processes import cgroup_directories, cgroup_of, mounts_below, processes_naming
from tests.support.waiting import wait_for


def left_behind(base: Path, cgroup: str) -> list[str]:
    found = [f"mount {point}" for point in mounts_below(base)]
    found += [f"process {pid}" for pid in processes_naming(base)]
    found += [f"cgroup {directory}" for directory in cgroup_directories(cgroup)]
    return found + ([f"directory {base}"] if base.exists() else [])


@NEEDS_DOCKER
def test_docker_keeps_what_a_container_prints(docker_runtime: DockerEngine) -> None:
    container = docker_runtime.run(["sh", "-c", "echo $A"], env={"A": "hello"}, labels={"team": "shop"})
    assert docker_runtime.wait(container) == 0
    facts = docker_runtime.inspect(container)
    assert json.loads(Path(facts["LogPath"]).read_text())["log"] == "hello\n"
    assert facts["Config"]["Labels"] == {"team": "shop"}


@NEEDS_DOCKER
def test_docker_removes_a_finished_container_with_its_log(docker_runtime: DockerEngine) -> None:
    container = docker_runtime.run(["true"], auto_remove=True)
    docker_runtime.wait(container)
    wait_for(lambda: docker_runtime.containers() == [], "removal of the container")
    assert not (docker_runtime.data_root / "containers" / container).exists()


@NEEDS_CRI
def test_cri_keeps_what_a_container_prints_across_rotation(cri_runtime: CriEngine) -> None:
    pod = cri_runtime.run_pod("web-0", namespace="shop")
    container = cri_runtime.run(
        pod, "nginx", ["sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.01; done; echo two"]
    )
    wait_for(lambda: b" one\n" in container.log_path.read_bytes(), "the first line")
    rotated = cri_runtime.rotate_log(container)
    cri_runtime.execute(container, ["touch", "/go"])
    wait_for(lambda: cri_runtime.exited(container), "end of the container")
    assert rotated.read_bytes().endswith(b" stdout F one\n")
    assert container.log_path.read_bytes().endswith(b" stdout F two\n")


@NEEDS_DOCKER
def test_docker_survives_a_crash_of_the_engine_and_leaves_nothing_behind() -> None:
    with DockerEngine.started() as engine:
        container = engine.run(["sleep", "1000"])
        pid = engine.inspect(container)["State"]["Pid"]
        engine.dockerd.kill()
        engine.dockerd.start()
        assert engine.inspect(container)["State"]["Pid"] == pid
        engine.containerd.kill()
        engine.dockerd.kill()
    assert left_behind(engine.base, engine.cgroup) == []
    # Nobody waits for a process whose shim was killed, until the machine's init does.
    assert not Path(f"/proc/{pid}/exe").exists()


@NEEDS_CRI
def test_cri_leaves_nothing_behind() -> None:
    with CriEngine.started() as engine:
        pod = engine.run_pod("web-0")
        engine.run(pod, "nginx", ["sleep", "1000"])
        engine.containerd.kill()
    assert left_behind(engine.base, engine.cgroup) == []


@NEEDS_CRI
def test_what_a_killed_test_run_left_is_ended_by_the_next_one() -> None:
    program = """
import os, signal
from tests.runtimes.cri_engine import CriEngine
with CriEngine.started() as engine:
    engine.run(engine.run_pod("web-0"), "nginx", ["sleep", "1000"])
    print(engine.base, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    base = Path(killed.stdout.strip())
    assert list(processes_naming(base))
    with CriEngine.started():
        assert left_behind(base, cgroup_of(base)) == []
