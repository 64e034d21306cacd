"""Reads one answer in HTTP/1.1 from whatever gives its bytes: status line, headers, as much of the body as is wanted.

Owns the grammar and the bounds on lines, headers and body; everything that comes in is a stranger's. It must not know
of sockets, TLS, time, or of what a status means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

# An answer to a delivery is a few hundred bytes. More is read no further than this, and the connection goes with it.
LONGEST_ANSWER_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 64 * 1024
# Of the head, of interim answers before it, and of what frames the pieces of a chunked body, all together.
ALL_LINES_BYTES = 256 * 1024
MOST_FIELDS = 100

_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r]*)")
_CHUNK_SIZE = re.compile(r"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")

Receive = Callable[[], bytes]


class NotHttpError(ValueError):
    """What came is no answer in HTTP/1.1, or longer than anything sensible."""


class BrokenOffError(ConnectionError):
    """The bytes ended before the answer did."""


class Answer(NamedTuple):
    """What came back. Headers go by their names in lower case; the body is cut at LONGEST_ANSWER_BYTES."""

    status: int
    headers: dict[str, str]
    body: bytes
    keep: bool  # whether the connection can carry another request


class _Body(NamedTuple):
    content: bytes
    ended: bool  # whether the next byte would be that of another answer


def read_answer(receive: Receive) -> Answer:
    """Read an answer; `receive` gives the next bytes, none at the end, and raises what its connection raises."""
    incoming = _Incoming(receive)
    while True:
        minor, status = _status(incoming.line())
        headers = _headers(incoming)
        if status >= 200 or status == 101:
            break
    body = _body(incoming, status, headers)
    wishes = {wish.strip().lower() for wish in headers.get("connection", "").split(",")}
    lasting = "close" not in wishes if minor > 0 else "keep-alive" in wishes
    keep = lasting and body.ended and incoming.empty and status >= 200
    return Answer(status, headers, body.content, keep)


class _Incoming:
    """The bytes on their way: by line, or a given number of them."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held = bytearray()
        self._lines_bytes = 0

    @property
    def empty(self) -> bool:
        """Whether nothing more has come than was asked for."""
        return not self._held

    def line(self) -> str:
        """The next line without its end."""
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            if searched > LONGEST_LINE_BYTES:
                break
            self._fill()
        self._lines_bytes += end + 1
        if not 0 <= end <= LONGEST_LINE_BYTES or self._lines_bytes > ALL_LINES_BYTES:
            raise NotHttpError("its head is too long")
        return self.exactly(end + 1).decode("latin-1").removesuffix("\n").removesuffix("\r")

    def exactly(self, count: int) -> bytes:
        """This many bytes."""
        while len(self._held) < count:
            self._fill()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def to_the_end(self, most: int) -> bytes:
        """Everything until the connection ends, but not much more than this."""
        try:
            while len(self._held) <= most:
                self._fill()
        except BrokenOffError:
            pass
        return self.exactly(len(self._held))

    def _fill(self) -> None:
        data = self._receive()
        if not data:
            raise BrokenOffError
        self._held += data


def _status(line: str) -> tuple[int, int]:
    """The version's second number, and the status."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise NotHttpError("it does not begin with a status line")
    return int(found[1]), int(found[2])


def _headers(incoming: _Incoming) -> dict[str, str]:
    """The fields up to the empty line; several of one name become one, as a list."""
    headers: dict[str, str] = {}
    name = ""
    for _ in range(MOST_FIELDS + 1):
        line = incoming.line()
        if not line:
            return headers
        if line[0] in " \t" and name:  # a field may go on in the next line, though nobody has written that for years
            headers[name] += f" {line.strip()}"
            continue
        found = _FIELD.fullmatch(line)
        if found is None:
            raise NotHttpError("a header is malformed")
        name, value = found[1].lower(), found[2].rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    raise NotHttpError("it has too many headers")


def _body(incoming: _Incoming, status: int, headers: dict[str, str]) -> _Body:
    if status < 200 or status in (204, 304):
        return _Body(b"", ended=True)
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and coding.lower().rpartition(",")[2].strip() == "chunked":
        # Two ways of saying how long it is may be two opinions: nothing can follow such an answer.
        content, ended = _chunks(incoming)
        return _Body(content, ended and length is None)
    if coding is not None or length is None:
        return _Body(incoming.to_the_end(LONGEST_ANSWER_BYTES)[:LONGEST_ANSWER_BYTES], ended=False)
    lengths = {part.strip() for part in length.split(",")}
    wanted = lengths.pop()
    if lengths or not _LENGTH.fullmatch(wanted):
        raise NotHttpError("its length is no number")
    content = incoming.exactly(min(int(wanted), LONGEST_ANSWER_BYTES))
    return _Body(content, ended=len(content) == int(wanted))


def _chunks(incoming: _Incoming) -> _Body:
    content = bytearray()
    while True:
        found = _CHUNK_SIZE.fullmatch(incoming.line())
        if found is None:
            raise NotHttpError("a chunk's size is no number")
        size = int(found[1], 16)
        if size == 0:
            _headers(incoming)  # nobody asked for a trailer
            return _Body(bytes(content), ended=True)
        room = LONGEST_ANSWER_BYTES - len(content)
        content += incoming.exactly(min(size, room))
        if size > room:
            return _Body(bytes(content), ended=False)
        if incoming.line():
            raise NotHttpError("a chunk is longer than its size")
