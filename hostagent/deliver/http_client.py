"""One HTTP/1.1 connection to one backend: kept open, bounded in time and in what it reads.

Owns the socket and the deadline of a request; every failure leaves as a TemporaryError that says what, where and
what to do. It must not judge a status, follow a redirect or retry, except for one thing: a kept connection that turns
out to be closed before a byte of the answer came is opened again once.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import NoReturn, Protocol
from urllib.parse import SplitResult

from hostagent.clock import Clock
from hostagent.deliver.http_answer import Answer, NotHttpError, read_answer
from hostagent.deliver.secret_files import TlsFiles
from hostagent.errors import TemporaryError

# More than nearly every answer; a longer one is received in several pieces.
_PIECE_BYTES = 8 * 1024


class _UnansweredError(Exception):
    """The connection ended before the first byte of an answer."""


class Channel(Protocol):
    """What a request goes through: the socket as it is, or TLS."""

    @property
    def broken(self) -> tuple[type[OSError], ...]:
        """The errors by which a connection that has ended is known."""

    def outdated(self) -> bool:
        """Whether a kept connection must be opened anew."""

    def prepare(self) -> None:
        """Have everything ready that `over` needs."""

    def over(self, plain: socket.socket) -> socket.socket:
        """The channel over a connection that has just been opened."""

    def send(self, sock: socket.socket, head: bytes, body: bytes, limit: Callable[[], None]) -> None:
        """Send all of it; `limit` is called before each wait."""

    def explain(self, error: BaseException) -> str | None:
        """What went wrong, when it is the channel that did."""


class _Plain:
    """The socket as it is."""

    broken = (ConnectionError,)

    def outdated(self) -> bool:
        return False

    def prepare(self) -> None:
        pass

    def over(self, plain: socket.socket) -> socket.socket:
        return plain

    def send(self, sock: socket.socket, head: bytes, body: bytes, limit: Callable[[], None]) -> None:
        limit()
        sent = sock.sendmsg((head, body))
        if sent < len(head) + len(body):
            rest = memoryview(head + body)[sent:]
            sock.sendall(rest)  # its time-out is for all of it

    def explain(self, error: BaseException) -> str | None:
        return None


class HttpClient:
    """Used by one thread. `url` fixes scheme, host and port; a request brings its own path."""

    def __init__(
        self, url: SplitResult, tls: TlsFiles, connect_timeout_s: float, timeout_s: float, clock: Clock
    ) -> None:
        self.where = f"{url.scheme}://{url.netloc}"
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._channel: Channel = _Plain()
        if url.scheme == "https":
            from hostagent.deliver.tls import Tls  # noqa: PLC0415 - OpenSSL takes 4 MB

            self._channel = Tls(tls, self._host)
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._socket: socket.socket | None = None

    def request(self, head: bytes, body: bytes) -> Answer:
        """Send one request, given as its head with the empty line and its body, and read the answer."""
        kept = self._kept_socket()
        try:
            if kept is not None:
                try:
                    return self._exchange(kept, head, body)
                except _UnansweredError:
                    self.close()
            return self._exchange(self._connect(), head, body)
        except _UnansweredError as error:
            self._fail(error.__cause__ or error)
        except (OSError, ValueError) as error:
            self._fail(error)

    def close(self) -> None:
        """Close the connection, if there is one; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _kept_socket(self) -> socket.socket | None:
        """The open connection, unless the backend has closed it meanwhile or the certificates are new."""
        if self._socket is None:
            return None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        # Before a request nothing can be readable but the end of the connection, or bytes nobody asked for.
        if poll.poll(0) or self._channel.outdated():
            self.close()
        return self._socket

    def _connect(self) -> socket.socket:
        self._channel.prepare()
        plain = socket.create_connection((self._host, self._port), self._connect_timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = self._channel.over(plain)
        except BaseException:
            plain.close()
            raise
        return self._socket

    def _exchange(self, sock: socket.socket, head: bytes, body: bytes) -> Answer:
        connection = _Connection(sock, self._clock.monotonic_s() + self._timeout_s, self._clock)
        try:
            self._channel.send(sock, head, body, connection.limit)
        except self._channel.broken as error:
            # Some backends answer 413 or 401 and close before they have read the whole body: that answer counts.
            answer = self._late_answer(connection)
            if answer is None or 200 <= answer.status < 300:  # nobody can have taken a body that was not sent
                raise _UnansweredError from error
            return answer
        return self._read(connection)

    def _late_answer(self, connection: _Connection) -> Answer | None:
        try:
            return self._read(connection)
        except (_UnansweredError, OSError, ValueError):
            return None
        finally:
            self.close()

    def _read(self, connection: _Connection) -> Answer:
        try:
            answer = read_answer(connection.receive)
        except self._channel.broken as error:
            if not connection.answered:
                raise _UnansweredError from error
            raise
        if not answer.keep:
            self.close()
        return answer

    def _fail(self, error: BaseException) -> NoReturn:
        self.close()
        why = self._channel.explain(error) or explain(error, self._timeout_s, self._connect_timeout_s)
        raise TemporaryError(f"{self.where} {why}") from error


class _Connection:
    """A socket during one request: every wait has only the time that is left for all of it."""

    def __init__(self, sock: socket.socket, until_s: float, clock: Clock) -> None:
        self._sock = sock
        self._until_s = until_s
        self._clock = clock
        self.answered = False

    def limit(self) -> None:
        """Let the socket wait no longer than what is left."""
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)

    def receive(self) -> bytes:
        """What has come of the answer, after waiting for some of it; nothing at its end."""
        self.limit()
        data = self._sock.recv(_PIECE_BYTES)
        self.answered = self.answered or data != b""
        return data


def explain(error: BaseException, timeout_s: float, connect_timeout_s: float) -> str:
    """Say what went wrong with a connection, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f"can't be reached: its name can't be resolved ({error.strerror}); check the host name and DNS"
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection; check that it is running and listens there"
    if isinstance(error, TimeoutError):
        return f"did not answer in time ({connect_timeout_s:g} s to connect, {timeout_s:g} s for a request)"
    if isinstance(error, ConnectionError):
        return "closed the connection before its answer was complete"
    if isinstance(error, NotHttpError):
        return f"does not answer in HTTP ({error}); check the url"
    return f"can't be reached: {getattr(error, 'strerror', None) or error}"
