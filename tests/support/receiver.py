"""An HTTP backend in a process of its own: stores what arrives, honours Idempotency-Key, misbehaves on request.

It stands where the agent's output points, outside everything the tests break. Bodies are stored in order as they come
and decoded by whoever reads the journal, so that a bench does not measure the receiver. A second port takes orders:
GET /stats, PUT /behaviour. It ends when its standard input closes, so it can't outlive the test that started it.
"""

import contextlib
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.support import arrivals

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the data port answers. `share` of the requests under `path` are treated so, at most `times` of them."""

    kind: str = "healthy"
    status: int = 503
    retry_after_s: float | None = None
    delay_s: float = 0.0
    max_bytes: int = 0
    share: float = 1.0
    times: int | None = None
    path: str = ""


KINDS = (
    "healthy",
    "status",  # answer with `status`, store nothing
    "refuse",  # not even listen
    "slow",  # store, answer after `delay_s`
    "stall",  # read, never answer
    "stored_then_reset",  # store, then reset the connection instead of answering
    "cut",  # reset the connection in the middle of the body
    "too_large",  # 413 for a body over `max_bytes` on the wire that isn't stored already
    "half_answer",  # store, then end inside the answer's head
    "endless_answer",  # store, then an answer whose body does not end
    "redirect",  # 307 to somewhere else
)


class Request(msgspec.Struct):
    """The head of a request."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))


class GoneError(Exception):
    """The peer closed the connection, or we did."""


class Connection:
    """Just enough of HTTP/1.1 to take big bodies cheaply."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def request(self) -> Request:
        head = self._rest
        while (end := head.find(b"\r\n\r\n")) < 0:
            more = self._receive(65536)
            head += more
        self._rest = head[end + 4 :]
        first, *lines = head[:end].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, path, headers)

    def body(self, request: Request, limit: int | None = None) -> bytearray:
        """The body, or its first `limit` bytes."""
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunked()
        size = request.length if limit is None else min(limit, request.length)
        return self._exactly(size)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        raise GoneError

    def _receive(self, size: int) -> bytes:
        data = self.sock.recv(size)
        if not data:
            raise GoneError
        return data

    def _exactly(self, size: int) -> bytearray:
        body = bytearray(size)
        taken = min(size, len(self._rest))
        body[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        view = memoryview(body)
        while taken < size:
            count = self.sock.recv_into(view[taken:])
            if not count:
                raise GoneError
            taken += count
        return body

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._rest += self._receive(65536)
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _chunked(self) -> bytearray:
        body = bytearray()
        while size := int(self._line().split(b";")[0], 16):
            body += self._exactly(size)
            self._line()
        while self._line():
            pass
        return body


class Store:
    """What has been stored: the journal, and every key's bytes by their hash."""

    def __init__(self, journal: Path, *, honour_keys: bool) -> None:
        self._journal = arrivals.JournalWriter(journal)
        self._honour_keys = honour_keys
        self._digests: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()
        self.counts = {arrivals.STORED: 0, arrivals.REPEATED: 0, arrivals.VIOLATION: 0, "bytes": 0, "last_ns": 0}

    def knows(self, request: Request) -> bool:
        """Whether something is stored under the request's key."""
        key = request.headers.get("idempotency-key", "")
        with self._lock:
            return bool(key) and (request.path, key) in self._digests

    def add(self, request: Request, body: bytearray) -> None:
        key = request.headers.get("idempotency-key", "")
        digest = hashlib.blake2b(body, digest_size=16).digest() if key else b""
        with self._lock:
            outcome = arrivals.STORED
            if key and self._honour_keys:
                known = self._digests.setdefault((request.path, key), digest)
                if known is not digest:
                    told = "hostagent-incomplete" in request.headers
                    outcome = arrivals.REPEATED if known == digest or told else arrivals.VIOLATION
            kept = b"" if outcome == arrivals.REPEATED else body
            now_ns = time.time_ns()
            entry = arrivals.Entry(
                key=key,
                path=request.path,
                encoding=request.headers.get("content-encoding", ""),
                content_type=request.headers.get("content-type", ""),
                size=len(kept),
                at_ns=now_ns,
                outcome=outcome,
            )
            self._journal.append(entry, kept)
            self.counts[outcome] += 1
            self.counts["bytes"] += len(kept)
            self.counts["last_ns"] = now_ns


def bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


class DataPort:
    """The port the agent sends to."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._behaviour = Behaviour()
        self._left: int | None = None
        self._listening = threading.Event()
        self._connections: set[socket.socket] = set()
        self.requests = 0
        self.refused = 0
        # Bound by number, not by "any": only then the port stays ours while it does not listen (see _refuse).
        with bound(0) as chosen:
            self.port: int = chosen.getsockname()[1]
            self._listener = bound(self.port)
        self._listen()

    def behave(self, behaviour: Behaviour) -> None:
        if behaviour.kind not in KINDS:
            raise ValueError(f"{behaviour.kind!r} is no kind of behaviour; there are: {', '.join(KINDS)}")
        with self._lock:
            before, self._behaviour = self._behaviour, behaviour
            self._left = behaviour.times
        # Never shut down twice: the kernel would hand the second one on to every connection accepted later.
        if behaviour.kind == "refuse" and before.kind != "refuse":
            self._refuse()
        elif behaviour.kind != "refuse" and before.kind == "refuse":
            self._listen()
        if before.kind == "stall":
            self._drop_connections()

    def accept_forever(self) -> None:
        while True:
            self._listening.wait()
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _listen(self) -> None:
        self._listener.listen(128)
        self._listening.set()

    def _refuse(self) -> None:
        self._listening.clear()
        # On Linux this stops listening but keeps the port ours, so that nobody else can take it meanwhile.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._drop_connections()

    def _drop_connections(self) -> None:
        with self._lock:
            open_now = list(self._connections)
        for sock in open_now:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        try:
            while True:
                self._one(connection)
        except (GoneError, OSError):
            pass
        finally:
            with self._lock:
                self._connections.discard(sock)
            sock.close()

    def _choose(self, request: Request) -> Behaviour:
        with self._lock:
            self.requests += 1
            chosen = self._behaviour
            if chosen.kind in {"healthy", "refuse"} or self._left == 0 or not request.path.startswith(chosen.path):
                return Behaviour()
            if chosen.kind == "too_large" and (request.length <= chosen.max_bytes or self._store.knows(request)):
                return Behaviour()
            if chosen.share < 1.0 and self._rng.random() >= chosen.share:
                return Behaviour()
            if self._left is not None:
                self._left -= 1
            self.refused += 1
            return chosen

    def _one(self, connection: Connection) -> None:
        request = connection.request()
        behaviour = self._choose(request)
        if behaviour.kind == "cut":
            connection.body(request, limit=request.length // 2)
            connection.reset()
        body = connection.body(request)
        match behaviour.kind:
            case "status" | "too_large":
                status = 413 if behaviour.kind == "too_large" else behaviour.status
                extra = {} if behaviour.retry_after_s is None else {"Retry-After": f"{behaviour.retry_after_s:g}"}
                connection.answer(status, b"as ordered\n", extra)
                return
            case "redirect":
                connection.answer(307, b"", {"Location": f"http://127.0.0.1:{self.port}/elsewhere"})
                return
            case "stall":
                connection.sock.recv(1)  # only ends when the peer or an order ends it
                raise GoneError
        self._store.add(request, body)
        match behaviour.kind:
            case "slow":
                time.sleep(behaviour.delay_s)
            case "stored_then_reset":
                connection.reset()
            case "half_answer":
                connection.sock.sendall(b"HTTP/1.1 2")
                raise GoneError
            case "endless_answer":
                connection.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    connection.sock.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                    time.sleep(0.005)
        connection.answer(200)


def serve_orders(listener: socket.socket, port: DataPort, store: Store) -> None:
    """One order per request, one connection at a time."""
    while True:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(GoneError, OSError):
            connection = Connection(sock)
            request = connection.request()
            body = bytes(connection.body(request))
            answer: dict[str, Any]
            if request.method == "PUT" and request.path == "/behaviour":
                try:
                    port.behave(msgspec.json.decode(body, type=Behaviour))
                except (ValueError, msgspec.MsgspecError) as error:
                    connection.answer(400, str(error).encode())
                    continue
            answer = {**store.counts, "requests": port.requests, "refused": port.refused}
            connection.answer(200, json.dumps(answer).encode())


def main(journal: str, honour_keys: str, seed: str) -> None:
    store = Store(Path(journal), honour_keys=honour_keys == "honour")
    port = DataPort(store, int(seed))
    orders = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=port.accept_forever, daemon=True).start()
    threading.Thread(target=serve_orders, args=(orders, port, store), daemon=True).start()
    print(json.dumps({"port": port.port, "orders": orders.getsockname()[1]}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:4])
