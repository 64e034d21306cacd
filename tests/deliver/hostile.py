"""A backend that answers as it is told to, down to the byte: a real server on loopback, one thread per connection.

The receiver in `tests/support` is the honest one; this one exists for every way in which a server can be wrong.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Request(NamedTuple):
    """One request as it came in; `connection` numbers the connection it came over."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


Script = Callable[["Conversation", Request], bool]


class Conversation:
    """One connection from the server's side."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._buffer = b""

    def read(self) -> Request | None:
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
        wanted = int(headers.get("content-length", "0"))
        while len(self._buffer) < wanted:
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            self._buffer += more
        body, self._buffer = self._buffer[:wanted], self._buffer[wanted:]
        return Request(line, headers, body, self.number)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def answer(self, status: int, body: bytes = b"", *headers: str) -> bool:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return True

    def raw(self, data: bytes) -> bool:
        """Say exactly this, and hang up."""
        self.sock.sendall(data)
        return False

    def reset(self) -> bool:
        """Hang up with a reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


class HostileServer:
    """Runs `script(conversation, request)` for every request; False from it ends the connection.

    `early(conversation)`, when given, speaks before any request is read.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        early: Callable[[Conversation], bool] | None = None,
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.stored: list[Request] = []
        self.connections = 0
        self.refused_handshakes: list[str] = []
        self._early = early
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def url(self, path: str = "/in") -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}{path}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(plain, server_side=True)
                self._open.append(sock)
            conversation = Conversation(sock, number)
            if self._early is not None and not self._early(conversation):
                return
            while (request := conversation.read()) is not None:
                self.requests.append(request)
                if not self.script(conversation, request):
                    return
        except ssl.SSLError as error:
            self.refused_handshakes.append(str(error))
        except OSError:
            pass
        finally:
            sock.close()


@contextlib.contextmanager
def hostile(
    script: Script, *, tls: ssl.SSLContext | None = None, early: Callable[[Conversation], bool] | None = None
) -> Iterator[HostileServer]:
    server = HostileServer(script, tls=tls, early=early)
    try:
        yield server
    finally:
        server.close()
