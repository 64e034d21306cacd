"""TLS between an HTTP connection and its socket: made with files that are read again when they change.

Owns the context and everything that is only known to OpenSSL, which takes 4 MB of memory: this module is imported when
a URL says https, and by nobody else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from hostagent.deliver.secret_files import Mark, TlsFiles, mark_of
from hostagent.errors import TemporaryError

# TLS sends in records of at most 16 KiB; between a few of them the deadline is looked at again.
_SEND_BYTES = 256 * 1024

# OpenSSL's X509_V_ERR numbers.
_CERTIFICATE_HINTS = {
    9: "look at this machine's clock",
    10: "have it renewed, or look at this machine's clock",
    62: "use a name that it has in the url, or set server_name to one",
    64: "use a name that it has in the url, or set server_name to one",
}


class Tls:
    """A channel to one server, verified."""

    broken = (ConnectionError, ssl.SSLEOFError)

    def __init__(self, files: TlsFiles, host: str) -> None:
        self._files = files
        self._paths = [path for path in files[:3] if path]
        self._name = files.server_name or host
        self._mark: tuple[Mark, ...] | None = None
        self._context: ssl.SSLContext | None = None

    def outdated(self) -> bool:
        """Whether a connection was made with other certificates than there are now."""
        return mark_of(self._paths) != self._mark

    def prepare(self) -> None:
        """Read the files, if they are new."""
        mark = mark_of(self._paths)
        if self._context is None or mark != self._mark:
            try:
                context = ssl.create_default_context(cafile=self._files.ca_file)
                if self._files.certificate_file:
                    # Without a password function OpenSSL would ask for one on the terminal.
                    context.load_cert_chain(self._files.certificate_file, self._files.key_file, password=lambda: "")
            except ssl.SSLError as error:
                named = ", ".join(self._paths)
                raise TemporaryError(f"no usable certificate, key or CA in {named}: {error.reason or error}") from error
            self._context, self._mark = context, mark

    def over(self, plain: socket.socket) -> socket.socket:
        """Shake hands over a connection that has just been opened, after `prepare`."""
        assert self._context is not None
        return self._context.wrap_socket(plain, server_hostname=self._name)

    def send(self, sock: socket.socket, head: bytes, body: bytes, limit: Callable[[], None]) -> None:
        """Send all of it; `limit` is called before each wait."""
        rest = memoryview(head + body)
        while rest:
            limit()
            rest = rest[sock.send(rest[:_SEND_BYTES]) :]

    def explain(self, error: BaseException) -> str | None:
        """What went wrong, when it is TLS that did."""
        if isinstance(error, ssl.SSLCertVerificationError):
            why = error.verify_message
            hint = _CERTIFICATE_HINTS.get(error.verify_code, "set ca_file to the CA that signed it")
            return f"has a certificate that is not trusted ({why}); {hint}"
        if isinstance(error, ssl.SSLError):
            reason = error.reason or error
            return f"can't be spoken to over TLS ({reason}); check that it speaks TLS there and wants our certificate"
        return None
