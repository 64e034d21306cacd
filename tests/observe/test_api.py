"""The API answers real clients on real sockets, and a hostile one costs nobody else an answer."""

import http.client
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.config.listen import TcpAddress, UnixAddress
from hostagent.errors import HostagentError
from hostagent.observe.api import MAX_CONNECTIONS, MAX_REQUEST_BYTES, TEXT, Answer, Api, Route, json_answer

Start = Callable[..., Api]


def echo(query: Mapping[str, str]) -> Answer:
    return Answer(json.dumps(dict(query)).encode(errors="surrogateescape"))


def broken(_query: Mapping[str, str]) -> Answer:
    raise KeyError("a mistake in a route")


ROUTES: Mapping[str, Route] = {
    "/metrics": lambda _: Answer(b"m 1\n", TEXT),
    "/healthz": lambda _: Answer(b"reader: wedged\n", TEXT, 503),
    "/status": echo,
    "/broken": broken,
    "/large": lambda _: Answer(b"x" * 8_000_000, TEXT),
}


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Api] = []

    def started(*addresses: UnixAddress | TcpAddress, tcp_serves_all: bool = False) -> Api:
        api = Api(addresses, ROUTES, Clock(), tcp_serves_all=tcp_serves_all)
        api.start()
        running.append(api)
        return api

    yield started
    for api in running:
        api.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "api"]


def connect(address: UnixAddress | TcpAddress) -> socket.socket:
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX)
        # With a time-out, connecting would fail at once while the backlog is full instead of waiting for a place.
        sock.connect(address.path)
        sock.settimeout(20)
        return sock
    return socket.create_connection((address.host, address.port), timeout=20)


def exchange(address: UnixAddress | TcpAddress, request: bytes) -> tuple[int, bytes]:
    with connect(address) as sock:
        sock.sendall(request)
        response = http.client.HTTPResponse(sock, method=request.split(b" ")[0].decode("latin-1"))
        response.begin()
        return response.status, response.read()


def get(address: UnixAddress | TcpAddress, path: str) -> tuple[int, bytes]:
    return exchange(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def unix(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "run" / "api.sock"))


def test_routes_answer_with_their_query_and_status(start: Start, unix: UnixAddress) -> None:
    start(unix)
    assert get(unix, "/metrics") == (200, b"m 1\n")
    assert get(unix, "/healthz") == (503, b"reader: wedged\n")
    assert get(unix, "/status?path=/a%20b&x=") == (200, b'{"path": "/a b", "x": ""}')
    assert get(unix, "/status?path=%ff")[1] == b'{"path": "\\udcff"}'
    assert exchange(unix, b"HEAD /large HTTP/1.0\r\n\r\n")[0] == 200


def test_an_answer_larger_than_the_sockets_buffer_arrives_whole(start: Start, unix: UnixAddress) -> None:
    start(unix)
    assert len(get(unix, "/large")[1]) == 8_000_000


def test_a_route_that_fails_is_one_answers_problem(start: Start, unix: UnixAddress) -> None:
    start(unix)
    assert get(unix, "/broken")[0] == 500
    assert get(unix, "/metrics")[0] == 200


def test_tcp_serves_metrics_and_health_only_unless_told(start: Start) -> None:
    (address,) = start(TcpAddress("127.0.0.1", 0)).addresses
    assert (get(address, "/metrics")[0], get(address, "/healthz")[0], get(address, "/status")[0]) == (200, 503, 404)
    (address,) = start(TcpAddress("127.0.0.1", 0), tcp_serves_all=True).addresses
    assert get(address, "/status")[0] == 200


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00 garbage\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /status?" + b"a=1&" * 100 + b" HTTP/1.1\r\n\r\n", 400),
        (b"POST /status HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /none HTTP/1.1\r\n\r\n", 404),
        (b"GET /" + b"a" * MAX_REQUEST_BYTES, 431),
    ],
)
def test_nonsense_gets_a_client_error(start: Start, unix: UnixAddress, request_bytes: bytes, status: int) -> None:
    start(unix)
    assert exchange(unix, request_bytes)[0] == status
    assert get(unix, "/metrics")[0] == 200


def test_clients_that_never_finish_don_t_keep_others_out(start: Start, unix: UnixAddress) -> None:
    start(unix)
    idle = [connect(unix) for _ in range(3 * MAX_CONNECTIONS)]
    for sock in idle[::2]:
        try:
            sock.sendall(b"GET /status HTTP/1.1\r\nX: ")
        except OSError:
            continue  # already thrown out by those who came after it
    assert get(unix, "/metrics") == (200, b"m 1\n")
    assert all(is_closed(sock) for sock in idle[: 2 * MAX_CONNECTIONS])
    for sock in idle:
        sock.close()


def test_clients_that_never_read_or_vanish_don_t_keep_others_out(start: Start, unix: UnixAddress) -> None:
    start(unix)
    deaf = [connect(unix) for _ in range(MAX_CONNECTIONS)]
    for sock in deaf:
        sock.sendall(b"GET /large HTTP/1.1\r\n\r\n")
    assert get(unix, "/metrics")[0] == 200
    for sock in deaf:
        sock.close()
    assert get(unix, "/metrics")[0] == 200


def test_the_socket_is_for_its_owner_and_group(start: Start, unix: UnixAddress) -> None:
    start(unix)
    assert stat.S_IMODE(os.stat(unix.path).st_mode) == 0o660
    assert stat.S_IMODE(os.stat(os.path.dirname(unix.path)).st_mode) & 0o007 == 0


def test_a_dead_agents_socket_is_replaced_and_ones_own_removed(start: Start, unix: UnixAddress) -> None:
    os.makedirs(os.path.dirname(unix.path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(unix.path)
    api = start(unix)
    assert get(unix, "/metrics")[0] == 200
    api.stop()
    assert os.listdir(os.path.dirname(unix.path)) == []


def test_a_living_agents_socket_and_foreign_files_are_left_alone(
    start: Start, unix: UnixAddress, tmp_path: Path
) -> None:
    start(unix)
    with pytest.raises(HostagentError, match="a running agent answers there"):
        start(unix)
    assert get(unix, "/metrics")[0] == 200
    file = tmp_path / "precious"
    file.write_text("data")
    with pytest.raises(HostagentError, match="no socket"):
        start(UnixAddress(str(file)))
    assert file.read_text() == "data"


def test_a_successors_socket_survives_the_end_of_its_predecessor(start: Start, unix: UnixAddress) -> None:
    api = start(unix)
    os.unlink(unix.path)
    start(unix)
    api.stop()
    assert get(unix, "/metrics")[0] == 200


def test_a_taken_port_is_told_and_frees_the_other_sockets(start: Start, unix: UnixAddress) -> None:
    (taken,) = start(TcpAddress("127.0.0.1", 0)).addresses
    with pytest.raises(HostagentError, match=r"can't listen on 127\.0\.0\.1:\d+"):
        start(unix, taken)
    assert not os.path.lexists(unix.path)


def test_a_report_with_any_file_name_is_valid_json() -> None:
    assert json.loads(json_answer({"path": "/a\udcff\ud800\n"}).body) == {"path": "/a\\xff\\x00\n"}
    assert json.loads(json_answer({"path": "/ä"}).body) == {"path": "/ä"}
