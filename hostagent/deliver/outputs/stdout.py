"""The output for people and pipes: readable lines on a terminal, the encoded records as they are anywhere else.

Owns how a record looks on a terminal. Records hold hostile text: no control character of theirs reaches the terminal.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import msgspec
import orjson

from hostagent.errors import OutputGoneError, TemporaryError
from hostagent.hookspecs import Wiring
from hostagent.model import Delivery, Verdict

STDOUT_FD = 1
ACKED = Verdict()
# A reader that has gone does not come back to the same pipe; trying often would only cost.
GONE_DELAY_S = 60.0
# Longer than this a descriptor that takes nothing now is told in `status`.
PATIENCE_MS = 500

# C0, DEL, C1 and the bidirectional overrides: what makes a terminal do or show something else.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ORIGIN = ("service", "container_name", "k8s_container_name", "source", "path")
_SHOWN = {"message", "time", "path", "host", "stream", *_ORIGIN}
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[36m", "\x1b[0m"


class StdoutOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`format`: auto is pretty on a terminal and ndjson in a pipe or file."""

    default_compression: ClassVar[str] = "none"

    format: Literal["auto", "pretty", "ndjson"] = "auto"


class StdoutOutput:
    """Writes every delivery to one descriptor, whole, before it acks; what was written of it is not written again."""

    def __init__(self, options: StdoutOptions, fd: int = STDOUT_FD) -> None:
        self._fd = fd
        self._tty = os.isatty(fd)
        self._pretty = options.format == "pretty" or (options.format == "auto" and self._tty)
        self._begun = ("", 0)

    def send(self, delivery: Delivery) -> Verdict:
        body = delivery.body
        if self._pretty:
            body = "".join(pretty_lines(body, colour=self._tty)).encode("utf-8", "replace")
        try:
            self._write_rest(delivery.id, body)
        except BrokenPipeError as error:
            raise OutputGoneError("standard output was closed by whoever read it; restart", GONE_DELAY_S) from error
        except OSError as error:
            raise TemporaryError(f"standard output can't be written: {error.strerror}") from error
        return ACKED

    def close(self) -> None:
        """Standard output stays open: it is not ours."""

    def _write_rest(self, id_: str, body: bytes) -> None:
        written = self._begun[1] if self._begun[0] == id_ else 0
        view = memoryview(body)
        while written < len(body):
            try:
                written += os.write(self._fd, view[written:])
            except BlockingIOError:  # a descriptor that doesn't block, as others who have it may have told the kernel
                if not self._takes_more():
                    raise
            self._begun = (id_, written)
        self._begun = ("", 0)

    def _takes_more(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(PATIENCE_MS))


def pretty_lines(body: bytes, *, colour: bool) -> Iterable[str]:
    """One line of text for each record of an NDJSON body: time, where it is from, message, other fields."""
    dim, bold, reset = (_DIM, _BOLD, _RESET) if colour else ("", "", "")
    for line in body.removesuffix(b"\n").split(b"\n"):
        try:
            record = orjson.loads(line)
        except ValueError:
            record = line.decode("utf-8", "replace")
        if not isinstance(record, dict):
            yield f"{_safe(record)}\n"
            continue
        origin = next((record[name] for name in _ORIGIN if record.get(name)), "")
        time = record.get("time", "")
        words = [
            f"{dim}{_safe(time)}{reset}" if time != "" else "",
            f"{bold}{_safe(origin)}{reset}" if origin != "" else "",
            _safe(record.get("message", "")),
            *(f"{dim}{_safe(name)}={reset}{_safe(value)}" for name, value in record.items() if name not in _SHOWN),
        ]
        yield " ".join(word for word in words if word) + "\n"


def _safe(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}" if match[0] != "\n" else "\n    ", text)


def build_stdout(options: StdoutOptions, _wiring: Wiring) -> StdoutOutput:
    """Build the output from its options."""
    return StdoutOutput(options)
