"""Kubernetes' containers as the CRI discovery publishes them, from a real containerd."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import cri_runtime as follow_cri
from hostagent.discovery.cri.proto import cri_pb2 as cri
from hostagent.discovery.runtime.container import ContainerState, Mount
from tests.runtimes.cri_engine import CriContainer, CriEngine
from tests.runtimes.fixtures import NEEDS_CRI
from tests.runtimes.picture import Picture
from tests.runtimes.socket_proxy import SocketProxy
from tests.support.waiting import wait_for

pytestmark = NEEDS_CRI
# Faults must be found by their own signs, not by the next routine look.
NEVER_S = 3600.0


@pytest.fixture
def picture(cri_runtime: CriEngine) -> Iterator[Picture]:
    with Picture.of(follow_cri(str(cri_runtime.socket), Clock(), NEVER_S)) as picture:
        yield picture


@pytest.fixture
def proxy(cri_runtime: CriEngine) -> Iterator[SocketProxy]:
    with SocketProxy.before(cri_runtime.socket, cri_runtime.base / "proxy.sock") as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: SocketProxy) -> Iterator[Picture]:
    with Picture.of(follow_cri(str(proxy.path), Clock(), NEVER_S)) as picture:
        yield picture


def test_a_container_is_described_whole(cri_runtime: CriEngine, picture: Picture, tmp_path: Path) -> None:
    pod = cri_runtime.run_pod("web-0", namespace="shop", labels={"app": "web"}, annotations={"note": "ü\n\t"})
    made = cri_runtime.run(
        pod,
        "nginx",
        ["sh", "-c", "echo kept > /var/log/kept.log; exec sleep 1000"],
        env={"A": "b=c"},
        labels={"io.kubernetes.pod.namespace": "kube-system"},
        mounts={str(tmp_path): "/mounted"},
    )
    found = picture.wait_for(made.id, lambda one: one.state == ContainerState.RUNNING)
    assert (found.name, found.runtime, found.image) == ("nginx", "cri", "docker.io/local/busybox:1")
    assert found.pod is not None
    assert (found.pod.name, found.pod.namespace, found.pod.uid) == ("web-0", "shop", pod.config.metadata.uid)
    assert found.pod.labels["app"] == "web"
    assert found.pod.annotations == {"note": "ü\n\t"}
    assert found.env["A"] == "b=c"
    assert found.pid == json.loads(cri_runtime.status(made, verbose=True).info["info"])["pid"]
    assert (found.log_format, found.log_path) == ("cri", str(made.log_path))
    assert Mount("/mounted", str(tmp_path), "bind") in found.mounts
    wait_for((Path(found.roots[0]) / "var/log/kept.log").exists, "the file in the container")
    # The merged root is gone with the process, what was written stays.
    cri_runtime.stop_container(made)
    assert (Path(found.roots[1]) / "var/log/kept.log").read_text() == "kept\n"
    assert found.restarts == 0
    assert pod.id not in picture.seen()


def test_changes_of_a_container_are_followed(cri_runtime: CriEngine, picture: Picture) -> None:
    pod = cri_runtime.run_pod("web-0")
    made = cri_runtime.create(pod, "nginx", ["sh", "-c", "exit 3"])
    assert picture.wait_for(made.id).state == ContainerState.CREATED
    cri_runtime.start_container(made)
    ended = picture.wait_for(made.id, lambda one: one.state == ContainerState.EXITED)
    assert ended.exit_code == 3
    cri_runtime.remove_container(made.id)
    picture.wait_gone(made.id)
    again = picture.wait_for(cri_runtime.run(pod, "nginx", ["true"]).id)
    assert again.restarts == 1
    assert again.log_path != ended.log_path


def test_containers_that_live_for_milliseconds_are_all_seen(cri_runtime: CriEngine, picture: Picture) -> None:
    pod = cri_runtime.run_pod("web-0")

    def live(number: int) -> str:
        made = cri_runtime.run(pod, f"c{number}", ["echo", str(number)])
        wait_for(lambda: cri_runtime.exited(made), "end of the container")
        return made.id

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(live, range(20)))
    wait_for(lambda: picture.seen() == made, "every container")


def test_containers_that_ended_before_the_start_are_found(cri_runtime: CriEngine) -> None:
    made = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["true"])
    wait_for(lambda: cri_runtime.exited(made), "end of the container")
    with Picture.of(follow_cri(str(cri_runtime.socket), Clock(), NEVER_S)) as picture:
        assert picture.wait_for(made.id).state == ContainerState.EXITED
        wait_for(lambda: picture.listed is not None, "the end of the list")
        assert picture.listed == frozenset({made.id})


def test_containers_that_start_together_with_the_agent_are_found(cri_runtime: CriEngine) -> None:
    pods = [cri_runtime.run_pod(f"web-{number}") for number in range(4)]

    def start(number: int) -> CriContainer:
        return cri_runtime.run(pods[number % 4], f"c{number}", ["true"])

    with ThreadPoolExecutor(4) as pool:
        coming = [pool.submit(start, number) for number in range(12)]
        with Picture.of(follow_cri(str(cri_runtime.socket), Clock(), NEVER_S)) as picture:
            for one in coming:
                picture.wait_for(one.result().id)


def test_what_happened_in_a_gap_is_made_up_for(cri_runtime: CriEngine, proxy: SocketProxy, proxied: Picture) -> None:
    pod = cri_runtime.run_pod("web-0")
    removed = cri_runtime.run(pod, "a", ["sleep", "1000"])
    ended = cri_runtime.run(pod, "b", ["sleep", "1000"])
    for made in (removed, ended):
        proxied.wait_for(made.id, lambda one: one.state == ContainerState.RUNNING)
    proxy.cut()
    assert "socket" in proxied.wait_notice("can't be reached").hint
    cri_runtime.stop_container(removed)
    cri_runtime.remove_container(removed.id)
    cri_runtime.stop_container(ended)
    created = cri_runtime.run(pod, "c", ["true"])
    assert removed.id in proxied.now
    proxy.restore()
    proxied.wait_for(created.id)
    proxied.wait_gone(removed.id)
    proxied.wait_for(ended.id, lambda one: one.state == ContainerState.EXITED)
    proxied.wait_no_notices()


def test_a_restart_of_the_runtime_is_survived(cri_runtime: CriEngine, picture: Picture) -> None:
    pod = cri_runtime.run_pod("web-0")
    before = cri_runtime.run(pod, "a", ["sleep", "1000"])
    picture.wait_for(before.id, lambda one: one.state == ContainerState.RUNNING)
    cri_runtime.containerd.kill()
    cri_runtime.containerd.start()
    picture.wait_for(cri_runtime.run(pod, "b", ["true"]).id)
    picture.wait_no_notices()
    assert [kind for kind, one in picture.changes if one.id == before.id].count("added") == 1


def test_garbage_instead_of_an_answer_is_a_gap_and_no_more(
    cri_runtime: CriEngine, proxy: SocketProxy, proxied: Picture
) -> None:
    pod = cri_runtime.run_pod("web-0")
    proxied.wait_for(cri_runtime.run(pod, "a", ["true"]).id)
    for number, garbage in enumerate((b"\xff" * 100, b"HTTP/1.1 200 OK\r\n\r\n{}", b"\0\0\1\0\0\0\0\0\1\0")):
        proxy.say_to_clients(garbage)
        proxied.wait_for(cri_runtime.run(pod, f"c{number}", ["true"]).id)
    proxied.wait_no_notices()


def test_probes_in_a_container_cause_no_question(cri_runtime: CriEngine, picture: Picture) -> None:
    pod = cri_runtime.run_pod("web-0")
    made = cri_runtime.run(pod, "nginx", ["sleep", "1000"])
    picture.wait_for(made.id, lambda one: one.state == ContainerState.RUNNING)
    for _ in range(3):
        cri_runtime.execute(made, ["true"])
    picture.wait_for(cri_runtime.run(pod, "later", ["true"]).id)
    states = [one.state for _, one in picture.changes if one.id == made.id]
    assert states in ([ContainerState.CREATED, ContainerState.RUNNING], [ContainerState.RUNNING])


def test_a_pod_without_log_directory_is_said_to_have_no_log(cri_runtime: CriEngine, picture: Picture) -> None:
    pod = cri_runtime.run_pod("web-0", namespace="shop")
    pod.config.ClearField("log_directory")
    found = picture.wait_for(cri_runtime.run(pod, "nginx", ["true"]).id)
    assert found.log_path == ""
    assert found.log_notice is not None
    assert found.log_notice.subject == "container shop/web-0/nginx"
    assert found.log_notice.hint


class OtherRuntime(grpc.GenericRpcHandler):
    """A stand-in for runtimes that are not containerd, with one container and some of the calls."""

    def __init__(self, calls: tuple[str, ...]) -> None:
        self.calls = calls
        self.state = cri.CONTAINER_RUNNING
        self.listed = 0
        self.events: queue.Queue[bytes | None] = queue.Queue()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        name = str(details.method).rpartition("/")[2]
        if name not in self.calls:
            return None
        if name == "GetContainerEvents":
            return grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter(self.events.get, None))
        self.listed += name == "ListContainers"
        answer = {
            "Version": cri.VersionResponse(runtime_name="cri-o"),
            "ListContainers": cri.ListContainersResponse(
                containers=[cri.Container(id="c1", pod_sandbox_id="s1", state=self.state)]
            ),
            "ListPodSandbox": cri.ListPodSandboxResponse(
                items=[
                    cri.PodSandbox(id="s1", metadata=cri.PodSandboxMetadata(name="web-0", namespace="shop", uid="u"))
                ]
            ),
            "ContainerStatus": cri.ContainerStatusResponse(
                status=cri.ContainerStatus(
                    id="c1", metadata=cri.ContainerMetadata(name="nginx"), state=self.state, log_path="/var/log/x.log"
                ),
                info={"info": "no json"},
            ),
        }[name]
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer.SerializeToString())


@pytest.fixture
def other_runtime(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, OtherRuntime]]:
    server = grpc.server(ThreadPoolExecutor(4))
    runtime = OtherRuntime(request.param)
    server.add_generic_rpc_handlers((runtime,))
    server.add_insecure_port(f"unix:{tmp_path}/cri.sock")
    server.start()
    yield tmp_path / "cri.sock", runtime
    runtime.events.put(None)
    server.stop(None).wait()


CALLS = ("Version", "ListContainers", "ListPodSandbox", "ContainerStatus")


@pytest.mark.parametrize("other_runtime", [CALLS], indirect=True, ids=["lists"])
def test_a_runtime_without_events_is_listed_again_and_again(other_runtime: tuple[Path, OtherRuntime]) -> None:
    socket, runtime = other_runtime
    with Picture.of(follow_cri(str(socket), Clock(), NEVER_S)) as picture:
        found = picture.wait_for("c1", lambda one: one.state == ContainerState.RUNNING)
        assert found.log_path == "/var/log/x.log"
        assert found.log_notice is not None
        assert "only its output" in found.log_notice.message
        wait_for(lambda: runtime.listed > 10, "the lists at the start and some more")
        runtime.state = cri.CONTAINER_EXITED
        picture.wait_for("c1", lambda one: one.state == ContainerState.EXITED)


@pytest.mark.parametrize("other_runtime", [(*CALLS, "GetContainerEvents")], indirect=True, ids=["events"])
def test_a_runtime_with_cri_s_own_events_is_listened_to(other_runtime: tuple[Path, OtherRuntime]) -> None:
    socket, runtime = other_runtime
    with Picture.of(follow_cri(str(socket), Clock(), NEVER_S)) as picture:
        picture.wait_for("c1", lambda one: one.state == ContainerState.RUNNING)
        runtime.events.put(cri.ContainerEventResponse(container_id="c1").SerializeToString())
        # A list at the start, three to make up for what came before the subscription, one for each question.
        wait_for(lambda: runtime.listed >= 6, "the lists at the start")
        runtime.state = cri.CONTAINER_EXITED
        event = cri.ContainerEventResponse(
            container_id="c1", container_event_type=cri.CONTAINER_STOPPED_EVENT
        ).SerializeToString()
        runtime.events.put(event)
        picture.wait_for("c1", lambda one: one.state == ContainerState.EXITED)


@pytest.mark.parametrize("other_runtime", [()], indirect=True, ids=["nothing"])
def test_a_runtime_that_speaks_no_cri_v1_is_said_to(other_runtime: tuple[Path, OtherRuntime]) -> None:
    with Picture.of(follow_cri(str(other_runtime[0]), Clock(), NEVER_S)) as picture:
        assert "1.6 or newer" in picture.wait_notice("does not speak CRI v1").hint


def test_a_missing_socket_is_waited_for(cri_runtime: CriEngine, tmp_path: Path) -> None:
    made = cri_runtime.run(cri_runtime.run_pod("web-0"), "nginx", ["true"])
    path = tmp_path / "late.sock"
    with Picture.of(follow_cri(str(path), Clock(), NEVER_S)) as picture:
        assert "start the container runtime" in picture.wait_notice("No such file").hint
        with SocketProxy.before(cri_runtime.socket, path):
            picture.wait_for(made.id)
            picture.wait_no_notices()
