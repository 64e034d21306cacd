"""The output that posts each block to an HTTP backend, under its id in `Idempotency-Key`.

Owns the options and the request; the connection is `http_client`'s, the meaning of a status `http_status`'s.
Credentials come from files, go into the request's head, and must not appear in an error text or a log.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from hostagent import __version__
from hostagent.clock import Clock
from hostagent.deliver.http_answer import Answer
from hostagent.deliver.http_client import HttpClient
from hostagent.deliver.http_status import OPERATOR_DELAY_S, verdict_of
from hostagent.deliver.secret_files import SecretFile, TlsFiles
from hostagent.errors import TemporaryError
from hostagent.hookspecs import Wiring
from hostagent.model import Delivery, Verdict

MAX_REDIRECTS = 3
_EXCERPT_CHARS = 200
_TAG = re.compile(r"<[^<>]*>")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What the agent itself says about a delivery, and what would make two ways of saying how long it is.
_OURS = frozenset(
    ("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "idempotency-key", "connection")
)
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to post, with which credentials, and how long it may take.

    `timeout_s` bounds one request as a whole, sending and answer together.
    """

    url: str
    headers: dict[str, str] = {}
    bearer_token_file: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    server_name: str | None = None
    connect_timeout_s: _Seconds = 10.0
    timeout_s: _Seconds = 30.0

    def __post_init__(self) -> None:
        _check_url(self.url)
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not value.isprintable() or not value.isascii():
                raise ValueError(f"headers: {name!r} is not a header of printable ASCII")
            if name.lower() in _OURS:
                raise ValueError(f"headers: {name} is set by the agent itself")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username: goes together with password_file")
        if self.bearer_token_file and self.username is not None:
            raise ValueError(
                "bearer_token_file: is one way to authenticate, username and password_file another; use one"
            )
        if self.client_key_file and not self.client_certificate_file:
            raise ValueError("client_key_file: needs client_certificate_file")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"url: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url: must be http://host[:port]/path or https://host[:port]/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: must not hold credentials; use username with password_file, or bearer_token_file")
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url: must be plain ASCII without spaces or #fragment; percent-encode what is not")


class HttpOutput:
    """Posts deliveries one at a time over a connection it keeps."""

    def __init__(self, options: HttpOptions, clock: Clock) -> None:
        self._clock = clock
        self._url = urlsplit(options.url)
        self._where = f"{self._url.scheme}://{self._url.netloc}{self._url.path}"
        self._path = _path_of(self._url)
        self._options = options
        self._token = SecretFile(options.bearer_token_file) if options.bearer_token_file else None
        self._password = SecretFile(options.password_file) if options.password_file else None
        tls = TlsFiles(options.ca_file, options.client_certificate_file, options.client_key_file, options.server_name)
        self._client = HttpClient(self._url, tls, options.connect_timeout_s, options.timeout_s, clock)
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in options.headers.items())

    def send(self, delivery: Delivery) -> Verdict:
        credentials, secret = self._credentials()
        path = self._path
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._client.request(self._head(path, delivery, credentials), delivery.body)
            if not 300 <= answer.status < 400:
                excerpt = _excerpt(answer.body, secret)
                wish = answer.headers.get("retry-after")
                return verdict_of(answer.status, self._where, excerpt, wish, self._clock.wall_ns())
            path = self._redirected(answer, path)
        raise TemporaryError(f"{self._where} redirects in a circle: check the url", OPERATOR_DELAY_S)

    def close(self) -> None:
        self._client.close()

    def _head(self, path: str, delivery: Delivery, credentials: str) -> bytes:
        encoding = "" if delivery.compression == "none" else f"Content-Encoding: {delivery.compression}\r\n"
        # Under this id more records may have been sent before: a backend that has stored those has all of them.
        incomplete = "Hostagent-Incomplete: true\r\n" if delivery.incomplete else ""
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nUser-Agent: hostagent/{__version__}\r\n"
            f"Content-Type: {delivery.content_type}\r\n{encoding}Content-Length: {len(delivery.body)}\r\n"
            f"Idempotency-Key: {delivery.id}\r\n{incomplete}{credentials}{self._fixed}\r\n"
        ).encode("latin-1")

    def _credentials(self) -> tuple[str, str]:
        """The Authorization line, and the secret in it, which an answer's excerpt must not repeat."""
        if self._token is not None:
            token = self._token.value()
            if not token.isascii():
                raise TemporaryError(f"{self._options.bearer_token_file} does not hold a token: it must be ASCII")
            return f"Authorization: Bearer {token}\r\n", token
        if self._password is not None:
            pair = f"{self._options.username}:{self._password.value()}".encode()
            code = base64.b64encode(pair).decode()
            return f"Authorization: Basic {code}\r\n", code
        return "", ""

    def _redirected(self, answer: Answer, path: str) -> str:
        """The path a redirect leads to. Only the same server gets the block and our credentials."""
        location = answer.headers.get("location", "")
        shown = "".join(char if char.isprintable() else "?" for char in location.partition("?")[0][:_EXCERPT_CHARS])
        try:
            to = urlsplit(urljoin(f"{self._url.scheme}://{self._url.netloc}{path}", location))
            same = (to.scheme, to.netloc.lower()) == (self._url.scheme, self._url.netloc.lower())
        except ValueError:
            to, same = self._url, False
        if answer.status not in (307, 308) or not location or not same:
            raise TemporaryError(
                f"{self._where} answered {answer.status}, a redirect to {shown or 'nowhere'}: only 307 and 308 on "
                "this server are followed; set url to where the records should go",
                OPERATOR_DELAY_S,
            )
        there = _path_of(to)
        if not there.isascii() or not there.isprintable() or " " in there:
            raise TemporaryError(f"{self._where} redirects to a path that is none: check the url", OPERATOR_DELAY_S)
        if answer.status == 308:
            self._path = there
        return there


def _path_of(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _excerpt(body: bytes, secret: str) -> str:
    """The beginning of an answer, fit for a line of our own log."""
    text = body[: 16 * _EXCERPT_CHARS].decode("utf-8", "replace")
    if secret:
        text = text.replace(secret, "***")
    if text.lstrip().startswith("<"):
        text = _TAG.sub(" ", text)  # a server's or proxy's own page, whose words come after much of nothing
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _EXCERPT_CHARS else text[:_EXCERPT_CHARS] + "…"


def build_http(options: HttpOptions, wiring: Wiring) -> HttpOutput:
    """Build the output from its options."""
    return HttpOutput(options, wiring.clock)
