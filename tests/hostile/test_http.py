"""Everything a backend can do wrong, through the whole agent: nothing lost, nothing twice, and status says why."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
import zstandard

from tests.hostile.scene import Scene, append, numbered

FAULTS: dict[str, dict[str, Any]] = {
    "reset": {"kind": "stored_then_reset", "times": 2},
    "cut": {"kind": "cut", "times": 2},
    "half an answer": {"kind": "half_answer", "times": 2},
    "500": {"kind": "status", "status": 500, "times": 2},
    "429": {"kind": "status", "status": 429, "retry_after_s": 1, "times": 2},
    "503": {"kind": "status", "status": 503, "retry_after_s": 0, "times": 2},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_no_line(scene: Scene, fault: str) -> None:
    scene.backend.behave(**FAULTS[fault])
    lines = numbered("a", range(300))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.wait(lambda: scene.output_status()["last_error"], "status to tell")
    scene.expect(*lines)
    append(scene.logs / "a.log", "afterwards")
    scene.expect(*lines, "afterwards")
    scene.wait(lambda: scene.output_status()["state"] == "ok", "the output to be well")
    assert scene.losses() == []
    assert scene.output_status()["dead_letters"] == 0


@pytest.mark.parametrize("answer", ["endless_answer", "redirect"])
def test_an_odd_answer_is_understood(scene: Scene, answer: str) -> None:
    """A success whose body has no end, and another path on the same server."""
    scene.backend.behave(answer, times=2)
    lines = numbered("a", range(300))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    append(scene.logs / "a.log", "afterwards")
    scene.expect(*lines, "afterwards")


def test_refused_at_start_and_there_later(scene: Scene) -> None:
    scene.backend.behave("refuse")
    lines = numbered("a", range(300))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.wait(lambda: "refused" in scene.output_status()["last_error"], "status to tell")
    scene.backend.behave()
    scene.expect(*lines)


def test_a_request_that_is_refused_for_good_becomes_a_dead_letter(scene: Scene) -> None:
    append(scene.logs / "a.log", "poison")
    scene.backend.behave("status", status=400, times=1)
    scene.start()
    scene.wait(lambda: scene.output_status()["dead_letters"] == 1, "the dead letter")
    append(scene.logs / "a.log", "good")
    scene.expect("good")
    listed = scene.agent.call("dead-letters", "ls")
    assert listed.returncode == 0, listed.stderr
    assert "main" in listed.stdout
    told = scene.agent.call("dead-letters", "cat", "main")
    assert "poison" in told.stdout, told.stderr
    scene.restart()
    append(scene.logs / "a.log", "better")
    scene.expect("good", "better")


def test_too_large_is_divided(scene: Scene) -> None:
    scene.config["outputs"]["main"]["compression"] = "none"
    scene.backend.behave("too_large", max_bytes=5_000)
    lines = numbered("a", range(300))
    append(scene.logs / "a.log", *lines[:150], "w" * 10_000, *lines[150:])
    scene.start()
    scene.expect(*lines)
    scene.wait(lambda: scene.output_status()["dead_letters"] == 1, "the one that is too large by itself")


def test_a_block_that_is_killed_half_delivered_is_divided_as_before(scene: Scene) -> None:
    """Even if the backend takes it whole by then: it has some of the pieces."""
    scene.config["outputs"]["main"]["compression"] = "none"
    scene.backend.behave("too_large", max_bytes=1000)
    lines = numbered("a", range(1500))
    append(scene.logs / "a.log", *lines)
    scene.start()
    for _ in range(3):
        seen = len(scene.messages())
        scene.wait(lambda seen=seen: len(scene.messages()) > seen, "some pieces")
        scene.kill()
        assert len(scene.messages()) < len(lines)
        scene.start()
    scene.kill()
    scene.backend.behave()
    scene.start()
    scene.expect(*lines)


def certified(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return context


class Seen:
    """What a small server was sent, and whom it lets in."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.refused = 0
        self.token = ""
        self.port = 0


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Seen]:
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            allowed = not seen.token or self.headers["Authorization"] == f"Bearer {seen.token}"
            if allowed:
                data = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
                seen.messages += [orjson.loads(line)["message"] for line in data.splitlines()]
            else:
                seen.refused += 1
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[object, object]:  # type: ignore[override]
            sock, address = super().get_request()
            return (tls.wrap_socket(sock, server_side=True) if tls is not None else sock), address

        def handle_error(self, *_arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_token_that_is_wrong_until_its_file_is_mended(scene: Scene, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with serving() as seen:
        seen.token = "right-" + "x" * 20
        main = scene.config["outputs"]["main"]
        main.update(url=f"http://127.0.0.1:{seen.port}/", bearer_token_file=str(token), compression="zstd")
        append(scene.logs / "a.log", "one", "two")
        scene.start()
        scene.wait(lambda: "401" in scene.output_status()["last_error"], "status to tell")
        token.write_text(seen.token + "\n")
        # A wrong credential is not tried again at once, so that no backend locks the account; but when asked to.
        refused = seen.refused
        scene.poke()
        scene.wait(lambda: seen.messages == ["one", "two"], "both lines", timeout_s=60)
        assert seen.refused == refused
        assert seen.token not in scene.agent.get("/status")[1] + scene.agent.log.read_text()
        scene.agent.stop()


def test_a_certificate_that_is_not_trusted_until_the_right_ca_is_there(scene: Scene, tmp_path: Path) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    ca_file = tmp_path / "ca.pem"
    wrong.cert_pem.write_to_path(str(ca_file))
    with serving(certified(right)) as seen:
        main = scene.config["outputs"]["main"]
        main.update(url=f"https://localhost:{seen.port}/", ca_file=str(ca_file), compression="zstd")
        append(scene.logs / "a.log", "one", "two")
        scene.start()
        scene.wait(lambda: "certificate" in scene.output_status()["last_error"], "status to tell")
        assert seen.messages == []
        right.cert_pem.write_to_path(str(ca_file))
        scene.poke()
        scene.wait(lambda: seen.messages == ["one", "two"], "both lines", timeout_s=60)
        scene.agent.stop()
