"""The local API: answers GET requests on a unix socket and, for metrics and health, on TCP.

One thread with non-blocking sockets, so that a client that dribbles bytes or never reads costs a slot for a few
seconds and nothing else: requests are small, connections few and short-lived, and all are bounded. What is answered
comes from a table of callables the daemon hands in; the server knows no stage and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from hostagent.clock import Clock
from hostagent.config.listen import TcpAddress, UnixAddress
from hostagent.observe.listeners import Listener, open_listener

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 32
REQUEST_LIMIT_S = 5.0
ANSWER_LIMIT_S = 20.0
PAUSE_S = 1.0
PUBLIC_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_SURROGATE = re.compile("[\ud800-\udfff]")

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a route returns."""

    body: bytes
    content_type: str = JSON
    status: int = 200


def json_answer(value: object) -> Answer:
    """A report as JSON; bytes of file names that are no UTF-8 can't stand in it and become hex escapes."""
    try:
        return Answer(msgspec.json.encode(value))
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return Answer(_SURROGATE.sub(lambda match: f"\\\\x{ord(match[0]) & 0xFF:02x}", text).encode())


Route = Callable[[Mapping[str, str]], Answer]


class _Connection:
    """One client, from accept to the last byte of its answer."""

    def __init__(self, sock: socket.socket, deadline_s: float, *, public_only: bool) -> None:
        self.sock = sock
        self.deadline_s = deadline_s
        self.public_only = public_only
        self.request = bytearray()
        self.answer: memoryview | None = None


class Api:
    """The server. `start` opens the sockets, so a taken address is known before the agent says it is ready."""

    def __init__(
        self,
        addresses: Sequence[UnixAddress | TcpAddress],
        routes: Mapping[str, Route],
        clock: Clock,
        *,
        tcp_serves_all: bool = False,
    ) -> None:
        self._addresses = addresses
        self._routes = routes
        self._clock = clock
        self._tcp_serves_all = tcp_serves_all
        self._listeners: list[Listener] = []
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_fd = -1
        self._stopping = False
        self._resume_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    @property
    def addresses(self) -> list[UnixAddress | TcpAddress]:
        """Where it listens; a TCP port of 0 has become the port the kernel chose."""
        return [listener.address for listener in self._listeners]

    def start(self) -> None:
        """Open the sockets and answer from a thread of its own; HostagentError when an address can't be had."""
        try:
            for address in self._addresses:
                self._listeners.append(open_listener(address))
        except BaseException:
            self._close_listeners()
            raise
        for listener in self._listeners:
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, None)
        self._thread.start()

    def stop(self) -> None:
        """Close everything; clients in the middle of an answer are cut off."""
        if self._wake_fd < 0:
            return
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._close_listeners()
        os.close(self._wake_fd)
        self._wake_fd = -1

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # a thread's top: one caller's connection must not end the API for all
                log.exception("the local API had an unexpected error and goes on")
                self._pause()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()

    def _turn(self) -> None:
        now_s = self._clock.monotonic_s()
        for connection in [one for one in self._connections.values() if one.deadline_s <= now_s]:
            self._drop(connection)
        if self._resume_s is not None and self._resume_s <= now_s:
            self._resume_s = None
            for listener in self._listeners:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)
        deadlines = [connection.deadline_s for connection in self._connections.values()]
        deadlines += [] if self._resume_s is None else [self._resume_s]
        for key, _ in self._selector.select(max(0.0, min(deadlines) - now_s) if deadlines else None):
            if isinstance(key.data, Listener):
                self._accept(key.data)
            elif isinstance(key.data, _Connection):
                # A client that is gone is its own business.
                try:
                    self._serve(key.data)
                except OSError:
                    self._drop(key.data)

    def _accept(self, listener: Listener) -> None:
        try:
            sock, _ = listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("the local API can't take a connection: %s", error)
            self._pause()
            return
        sock.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            # The newcomer is more likely honest than whoever has been sitting here longest.
            self._drop(min(self._connections.values(), key=lambda one: one.deadline_s))
        public_only = isinstance(listener.address, TcpAddress) and not self._tcp_serves_all
        connection = _Connection(sock, self._clock.monotonic_s() + REQUEST_LIMIT_S, public_only=public_only)
        self._connections[sock.fileno()] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _pause(self) -> None:
        """Take no connections for a moment; out of descriptors, a waiting client would keep the loop spinning."""
        if self._resume_s is None:
            self._resume_s = self._clock.monotonic_s() + PAUSE_S
            for listener in self._listeners:
                self._selector.unregister(listener.sock)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.sock.fileno(), None) is not None:
            self._selector.unregister(connection.sock)
        connection.sock.close()

    def _serve(self, connection: _Connection) -> None:
        if connection.answer is None:
            try:
                data = connection.sock.recv(4096)
            except BlockingIOError:
                return
            connection.request += data
            if b"\r\n\r\n" in connection.request:
                head = bytes(connection.request).partition(b"\r\n\r\n")[0]
                connection.answer = memoryview(self._respond(head, public_only=connection.public_only))
            elif len(connection.request) > MAX_REQUEST_BYTES:
                connection.answer = memoryview(_message(_plain(431)))
            elif not data:
                self._drop(connection)
                return
            else:
                return
            connection.deadline_s = self._clock.monotonic_s() + ANSWER_LIMIT_S
            self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        with contextlib.suppress(BlockingIOError):
            sent = connection.sock.send(connection.answer)
            connection.answer = connection.answer[sent:]
        if not connection.answer:
            self._drop(connection)

    def _respond(self, head: bytes, *, public_only: bool) -> bytes:
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _message(_plain(400))
        if words[0] not in (b"GET", b"HEAD"):
            return _message(_plain(405))
        try:
            target = urlsplit(words[1].decode("ascii"))
            # File names are bytes: what is no UTF-8 goes through as the lone surrogates that the whole agent uses.
            pairs = parse_qsl(target.query, keep_blank_values=True, max_num_fields=20, errors="surrogateescape")
        except ValueError:
            return _message(_plain(400))
        route = self._routes.get(target.path)
        if route is None or (public_only and target.path not in PUBLIC_PATHS):
            return _message(_plain(404))
        try:
            answer = route(dict(pairs))
        except Exception:  # one route's fault is one answer's, not the server's
            log.exception("the local API could not answer %s", target.path)
            answer = _plain(500)
        return _message(answer, body=words[0] == b"GET")


def _plain(status: int) -> Answer:
    return Answer(f"{status} {HTTPStatus(status).phrase}\n".encode(), TEXT, status)


def _message(answer: Answer, *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (answer.body if body else b"")
