"""One HTTP/1.1 connection to one backend: kept open, bounded in time and in what it reads.

Owns the socket, TLS and the deadline of a request; every failure leaves as a TemporaryError that says what, where and
what to do. It must not judge a status, follow a redirect or retry, except for one thing: a kept connection that turns
out to be closed before a byte of the answer came is opened again once.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
from typing import Any, NamedTuple, NoReturn, cast
from urllib.parse import SplitResult

from hostagent.clock import Clock
from hostagent.deliver.secret_files import Mark, mark_of
from hostagent.errors import TemporaryError

# An answer to a delivery is a few hundred bytes. More is read no further than this, and the connection goes with it.
LONGEST_ANSWER_BYTES = 64 * 1024


class Answer(NamedTuple):
    """What came back: the status, the headers, and at most LONGEST_ANSWER_BYTES of the body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class TlsFiles(NamedTuple):
    """The files a TLS connection is made with; they are read again when they change."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None


class _UnansweredError(Exception):
    """The connection ended before the first byte of an answer."""


class HttpClient:
    """Used by one thread. `url` fixes scheme, host and port; a request brings its own path."""

    def __init__(
        self, url: SplitResult, tls: TlsFiles, connect_timeout_s: float, timeout_s: float, clock: Clock
    ) -> None:
        self.where = f"{url.scheme}://{url.netloc}"
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._secure = url.scheme == "https"
        self._tls = tls
        self._tls_paths = [path for path in tls[:3] if path]
        self._tls_mark: tuple[Mark, ...] | None = None
        self._tls_context: ssl.SSLContext | None = None
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
        except (OSError, http.client.HTTPException, ValueError) as error:
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
        if poll.poll(0) or (self._secure and mark_of(self._tls_paths) != self._tls_mark):
            self.close()
        return self._socket

    def _connect(self) -> socket.socket:
        context = self._context() if self._secure else None
        plain = socket.create_connection((self._host, self._port), self._connect_timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = plain
            if context is not None:
                name = self._tls.server_name or self._host
                self._socket = context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            self._socket = None
            raise
        return self._socket

    def _context(self) -> ssl.SSLContext:
        mark = mark_of(self._tls_paths)
        if self._tls_context is None or mark != self._tls_mark:
            try:
                context = ssl.create_default_context(cafile=self._tls.ca_file)
                if self._tls.certificate_file:
                    # Without a password function OpenSSL would ask for one on the terminal.
                    context.load_cert_chain(self._tls.certificate_file, self._tls.key_file, password=lambda: "")
            except ssl.SSLError as error:
                named = ", ".join(self._tls_paths)
                raise TemporaryError(f"no usable certificate, key or CA in {named}: {error.reason or error}") from error
            self._tls_context, self._tls_mark = context, mark
        return self._tls_context

    def _exchange(self, sock: socket.socket, head: bytes, body: bytes) -> Answer:
        until_s = self._clock.monotonic_s() + self._timeout_s
        reader = _BoundedReader(sock, until_s, self._clock)
        try:
            reader.limit()
            _send(sock, head, body, reader)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
            # Some backends answer 413 or 401 and close before they have read the whole body: that answer counts.
            answer = self._late_answer(reader)
            if answer is None or 200 <= answer.status < 300:  # nobody can have taken a body that was not sent
                raise _UnansweredError from error
            return answer
        return self._read(reader)

    def _late_answer(self, reader: _BoundedReader) -> Answer | None:
        try:
            return self._read(reader)
        except (_UnansweredError, OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            self.close()

    def _read(self, reader: _BoundedReader) -> Answer:
        response = http.client.HTTPResponse(cast(socket.socket, reader))  # all it wants of a socket is makefile
        try:
            response.begin()
            if reader.ended:  # http.client takes headers that break off for all there are
                raise http.client.IncompleteRead(b"")
            content = response.read(LONGEST_ANSWER_BYTES + 1)
            keep = not response.will_close and response.isclosed() and response.status >= 200
            if not keep:
                self.close()
            length = response.headers.get("Content-Length", "")
            if len(content) <= LONGEST_ANSWER_BYTES and length.isdigit() and len(content) < int(length[:18]):
                raise http.client.IncompleteRead(content, int(length[:18]) - len(content))
            return Answer(response.status, response.headers, content[:LONGEST_ANSWER_BYTES])
        except (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError) as error:
            if reader.received == 0:
                raise _UnansweredError from error
            raise
        finally:
            response.close()

    def _fail(self, error: BaseException) -> NoReturn:
        self.close()
        raise TemporaryError(f"{self.where} {explain(error, self._timeout_s, self._connect_timeout_s)}") from error


class _BoundedReader(io.RawIOBase):
    """A socket's receiving side as a file, where every read has only the time that is left for the whole request."""

    def __init__(self, sock: socket.socket, until_s: float, clock: Clock) -> None:
        self._sock = sock
        self._until_s = until_s
        self._clock = clock
        self.received = 0
        self.ended = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def limit(self) -> None:
        """Let the socket wait no longer than what is left."""
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no type before 3.12
        self.limit()
        count = self._sock.recv_into(buffer)
        self.received += count
        self.ended = count == 0
        return count


def _send(sock: socket.socket, head: bytes, body: bytes, reader: _BoundedReader) -> None:
    if isinstance(sock, ssl.SSLSocket):
        # TLS sends in records of at most 16 KiB; between them the deadline is looked at again.
        rest = memoryview(head + body)
        while rest:
            reader.limit()
            rest = rest[sock.send(rest[: 256 * 1024]) :]
        return
    sent = sock.sendmsg((head, body))
    if sent < len(head) + len(body):
        rest = memoryview(head + body)[sent:]
        sock.sendall(rest)  # its time-out is for all of it


def explain(error: BaseException, timeout_s: float, connect_timeout_s: float) -> str:
    """Say what went wrong with a connection, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f"can't be reached: its name can't be resolved ({error.strerror}); check the host name and DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({error.verify_message}); set ca_file to the CA that signed it"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or error
        return f"can't be spoken to over TLS ({reason}); check that it speaks TLS there and wants our certificate"
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection; check that it is running and listens there"
    if isinstance(error, TimeoutError):
        return f"did not answer in time ({connect_timeout_s:g} s to connect, {timeout_s:g} s for a request)"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead | ConnectionError):
        return "closed the connection before its answer was complete"
    if isinstance(error, http.client.HTTPException | ValueError):
        return f"does not answer in HTTP ({type(error).__name__}); check the url"
    return f"can't be reached: {getattr(error, 'strerror', None) or error}"
