"""HTTP over Docker Engine's unix socket: kept connections, one request on each at a time, answers of bounded length.

It owns the sockets and turns every failure of the transport into a fault with a hint; paths, versions and what an
answer means are `api.py`'s business.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

from hostagent.discovery.runtime.session import RuntimeFaultError
from hostagent.discovery.runtime.unix_socket import connected, unreachable


class StatusError(RuntimeFaultError):
    """The engine answered, but with another status than 200."""

    def __init__(self, socket_path: str, path: str, status: int, text: str) -> None:
        super().__init__(f"Docker at {socket_path} answered {path} with {status}: {text}")
        self.status = status
        self.text = text


class NoAnswerError(RuntimeFaultError):
    """The engine took the request and did not answer in time."""


class TooLongError(RuntimeFaultError):
    """An answer is longer than anything sensible."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket; the host name above is sent, but nobody looks at it."""
        self.sock = connected(self._path, "Docker", self.timeout)

    def break_off(self) -> None:
        """Make a read in another thread return at once."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class Connections:
    """The connections to one engine. Requests may come from several threads; each has a connection to itself."""

    def __init__(self, socket_path: str, timeout_s: float) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[UnixConnection] = []
        self._busy: set[UnixConnection] = set()
        self._closed = False

    def close(self) -> None:
        """Close every connection; requests that wait for an answer end with a fault."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.break_off()
        for connection in idle:
            connection.close()

    def get(self, path: str, max_bytes: int) -> bytes:
        """The body of one answer, which must be a 200."""
        # A kept connection that turns out to be closed is no fault yet: the engine may have restarted.
        while (answer := self._tried(path, max_bytes)) is None:
            pass
        status, data = answer
        if status != http.client.OK:
            raise StatusError(self._socket_path, path, status, data.decode(errors="replace").strip()[:200])
        return data

    def stream(self, path: str, max_refusal_bytes: int) -> tuple[socket.socket, http.client.HTTPResponse]:
        """An answer without an end, on a connection that is no longer ours: its socket, to be shut down, and itself."""
        connection = UnixConnection(self._socket_path, self._timeout_s)
        try:
            connection.connect()
            stream_socket = connection.sock
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != http.client.OK:
                text = _bounded(response, max_refusal_bytes).decode(errors="replace").strip()[:200]
                raise StatusError(self._socket_path, path, response.status, text)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise unreachable(self._socket_path, "Docker", error) from error
        except BaseException:
            connection.close()
            raise
        # From here on silence is normal.
        stream_socket.settimeout(None)
        return stream_socket, response

    def _tried(self, path: str, max_bytes: int) -> tuple[int, bytes] | None:
        """Status and body; None when a kept connection was of no use any more, so that another one is worth a try."""
        connection, kept = self._taken()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            answer = response.status, _bounded(response, max_bytes)
        except TimeoutError as error:
            self._dropped(connection)
            text = f"Docker at {self._socket_path} does not answer within {self._timeout_s} s"
            raise NoAnswerError(text, "look at Docker's own log; it is asked again") from error
        except (OSError, http.client.HTTPException) as error:
            self._dropped(connection)
            if kept:
                return None
            raise unreachable(self._socket_path, "Docker", error) from error
        except BaseException:
            self._dropped(connection)
            raise
        self._put_back(connection)
        return answer

    def _taken(self) -> tuple[UnixConnection, bool]:
        with self._lock:
            if self._closed:
                raise RuntimeFaultError(f"the connection to Docker at {self._socket_path} has been closed")
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else UnixConnection(self._socket_path, self._timeout_s)
            self._busy.add(connection)
        return connection, kept

    def _dropped(self, connection: UnixConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _put_back(self, connection: UnixConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def _bounded(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    data = response.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLongError(f"an answer of Docker is longer than {max_bytes} bytes")
    return data
