"""Docker engines that are old, mad, slow or not for us: the discovery goes on, and says what it is missing.

The engine is a stand-in that speaks the API's own HTTP over a unix socket; real engines are in tests/runtimes.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import docker_runtime
from hostagent.discovery.docker.api import DockerApi
from hostagent.discovery.runtime.follower import Follower
from hostagent.discovery.runtime.session import RuntimeFaultError
from tests.runtimes.picture import Picture

VERSION = {"Version": "28.0.1", "ApiVersion": "1.48", "MinAPIVersion": "1.24"}


def facts(container_id: str, **more: object) -> dict[str, Any]:
    return {"Id": container_id, "Name": f"/{container_id}", "HostConfig": {"LogConfig": {"Type": "json-file"}}, **more}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each path with bytes, with JSON, or never."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Answering)
        self.path = path
        self.asked: list[str] = []
        self.never = threading.Event()
        self.answers: dict[str, Any] = {
            "/version": VERSION,
            "/info": {"DockerRootDir": "/var/lib/docker"},
            "/containers/json": [],
            "/events": None,
        }

    def has(self, *containers: dict[str, Any]) -> None:
        self.answers["/containers/json"] = [{"Id": one["Id"], "State": "running"} for one in containers]
        self.answers |= {f"/containers/{one['Id']}/json": one for one in containers}

    def follower(self) -> Follower:
        return docker_runtime(str(self.path), Clock(), 0.2)


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if path.startswith("/v"):
            path = path if path == "/version" else "/" + path.split("/", 2)[2]
        answer = self.server.answers.get(path, 404)
        if answer is None:
            # Headers, then silence: what an event stream without events is.
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        if answer in (None, "never"):
            self.server.never.wait()
            self.close_connection = True
            return
        body = answer if isinstance(answer, bytes) else b"" if isinstance(answer, int) else json.dumps(answer).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "docker.sock")
    thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield engine
    engine.never.set()
    engine.shutdown()
    thread.join()
    engine.server_close()


@pytest.mark.parametrize(
    "ours, spoken",
    [
        ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "/v1.41/"),
        ({"ApiVersion": "1.99", "MinAPIVersion": "1.44"}, "/v1.51/"),
        ({"ApiVersion": "1.99", "MinAPIVersion": "1.60"}, "/v1.60/"),
        ({"ApiVersion": "1.24"}, "/v1.24/"),
    ],
)
def test_a_version_that_both_know_is_spoken(engine: Engine, ours: dict[str, str], spoken: str) -> None:
    engine.answers["/version"] = ours
    api = DockerApi(str(engine.path))
    api.info()
    api.close()
    assert engine.asked == ["/version", f"{spoken}info"]


def test_an_engine_that_is_too_old_is_named(engine: Engine) -> None:
    engine.answers["/version"] = {"Version": "1.11.2", "ApiVersion": "1.23"}
    with Picture.of(engine.follower()) as picture:
        assert picture.wait_notice("1.23").hint == "upgrade Docker"


@pytest.mark.parametrize("answer", [b"no json", b"\xff\xfe", b"[]", {"ApiVersion": "latest"}, {"ApiVersion": 1.4}, 500])
def test_something_else_behind_the_socket_is_said_to_be(engine: Engine, answer: object) -> None:
    engine.answers["/version"] = answer
    with Picture.of(engine.follower()) as picture:
        notice = picture.wait_notice(str(engine.path))
        assert f"{notice.subject}: {notice.message}".count(str(engine.path)) == 1, notice
        engine.answers["/version"] = VERSION
        engine.has(facts("c1"))
        picture.wait_for("c1")
        picture.wait_no_notices()


@pytest.mark.parametrize(
    "bad", [b"no json", b"\xff", b"[]", {"Id": "bad", "State": 7}, 500, b" " * (17 * 1024 * 1024)], ids=range(6)
)
def test_a_container_that_can_not_be_described_stops_no_other(engine: Engine, bad: object) -> None:
    engine.has(facts("bad"), facts("good"))
    engine.answers["/containers/bad/json"] = bad
    with Picture.of(engine.follower()) as picture:
        picture.wait_for("good")
        assert picture.wait_notice("container bad").message
        engine.answers["/containers/bad/json"] = facts("bad")
        picture.wait_for("bad")
        picture.wait_no_notices()


def test_a_stuck_container_keeps_no_other_waiting(engine: Engine) -> None:
    stuck = [facts(f"stuck{number}") for number in range(3)]
    engine.has(*stuck, *(facts(f"c{number}") for number in range(20)))
    for one in stuck:
        engine.answers[f"/containers/{one['Id']}/json"] = "never"
    with Picture.of(engine.follower()) as picture:
        for number in range(20):
            picture.wait_for(f"c{number}")
        assert picture.listed is None


def test_garbage_instead_of_the_list_is_no_removal(engine: Engine) -> None:
    engine.has(facts("c1"))
    with Picture.of(engine.follower()) as picture:
        picture.wait_for("c1")
        engine.answers["/containers/json"] = b'[{"Id": 7}]'
        picture.wait_notice("list of containers")
        assert "c1" in picture.now
        engine.has()
        engine.answers["/containers/c1/json"] = 404
        picture.wait_gone("c1")
        picture.wait_no_notices()


def test_an_engine_that_never_answers_can_be_left(engine: Engine) -> None:
    engine.answers["/version"] = "never"
    with pytest.raises(RuntimeFaultError, match="does not answer within"):
        DockerApi(str(engine.path), timeout_s=0.1)


def test_an_engine_that_fails_after_its_version_is_tried_again(engine: Engine) -> None:
    engine.answers["/info"] = 500
    with Picture.of(engine.follower()) as picture:
        picture.wait_notice("/info with 500")
        engine.answers["/info"] = {"DockerRootDir": "/srv/docker"}
        engine.has(facts("c1"))
        assert picture.wait_for("c1").log_path.startswith("/srv/docker/")


def test_odd_facts_are_taken_as_they_come(engine: Engine) -> None:
    odd = facts(
        "c1",
        State={"Status": "levitating", "Pid": -1, "StartedAt": "yesterday"},
        Config={"Env": ["NO_VALUE", "A=1", "A=2", "=x", ""], "Labels": None},
        Mounts=[{"Type": "npipe", "Source": "", "Destination": ""}],
        GraphDriver={"Data": {"MergedDir": "relative"}},
        LogPath="",
    )
    engine.has(odd)
    with Picture.of(engine.follower()) as picture:
        found = picture.wait_for("c1")
    assert found.state == "unknown"
    assert found.env == {"A": "2"}
    assert (found.mounts, found.roots, found.started_ns) == ((), (), 0)
    assert found.log_path == "/var/lib/docker/containers/c1/c1-json.log"


@pytest.mark.requires(root=True, tools=("setpriv",))
def test_a_socket_we_may_not_use_is_said_to_be(engine: Engine) -> None:
    os.chmod(engine.path, 0o600)
    for directory in (engine.path.parent, *engine.path.parent.parents):
        if directory.name.startswith("pytest"):
            os.chmod(directory, 0o755)
    program = (
        "from hostagent.discovery.docker.api import DockerApi\n"
        "from hostagent.discovery.runtime.session import RuntimeFaultError\n"
        f"try: DockerApi({str(engine.path)!r})\n"
        "except RuntimeFaultError as fault: print(fault, '|', fault.hint)"
    )
    run = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Permission denied" in run.stdout, run.stderr
    assert "root" in run.stdout.partition("|")[2]
