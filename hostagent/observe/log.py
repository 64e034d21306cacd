"""The agent's own log: one line per event on stderr, readable on a terminal and parsable everywhere else.

Formats records of the standard library's logging and holds back what repeats. Text in them may come from a log file or
a backend, so control characters never reach a terminal, and no event can become two lines.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from hostagent.config.model import LogConfig

REPEAT_WINDOW_S = 30.0
# Kept short: past this many distinct events in a window, the oldest is forgotten and may be told again.
MAX_REMEMBERED = 500

_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_VISIBLE: Mapping[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(32), 127)},
    # A byte of a file name that is no UTF-8, as Python carries it.
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)},
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    # C1 controls; and marks that change the direction of text can make a line read as another one.
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}


def start_logging(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send all of the process's log to a stream (stderr) in the configured format; replaces what was set before."""
    stream = stream or sys.stderr
    chosen = config.format
    if chosen == "auto":
        chosen = "pretty" if stream.isatty() else "logfmt"
    handler = logging.StreamHandler(stream)
    formatters = {"pretty": _Pretty(colours=stream.isatty()), "logfmt": _Logfmt(), "json": _Json()}
    handler.setFormatter(formatters[chosen])
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    # A full disk or closed pipe behind stderr must not make the agent print tracebacks into the same pipe.
    logging.raiseExceptions = False


def visible(text: str) -> str:
    """Text with every control character written out."""
    return text.translate(_VISIBLE).encode(errors="backslashreplace").decode()


class Repeats(logging.Filter):
    """Lets an event pass once per window and says with the next how often it happened in between.

    Two events are the same when they come from the same line of code at the same level with the same text.
    """

    def __init__(self, window_s: float = REPEAT_WINDOW_S) -> None:
        super().__init__()
        self._window_s = window_s
        self._seen: dict[tuple[str, int, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.pathname, record.lineno, record.levelno, record.getMessage())
        first_s, held_back = self._seen.get(key, (0.0, 0))
        # A wall clock that was set back must not silence an event until it has caught up.
        if key in self._seen and 0 <= record.created - first_s < self._window_s:
            self._seen[key] = (first_s, held_back + 1)
            return False
        if len(self._seen) >= MAX_REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        self._seen.pop(key, None)
        self._seen[key] = (record.created, 0)
        if held_back:
            record.msg = f"{key[3]} (and {held_back} times more in the last {record.created - first_s:.0f} s)"
            record.args = ()
        return True


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    """What the three formats share: the text of an event, with its traceback in the same line."""

    def text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return message


class _Pretty(_Formatter):
    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        lines = [visible(line) for line in self.text(record).split("\n")]
        text = f"{clock} {record.levelname.lower():7} " + "\n    ".join(lines)
        colour = _COLOURS.get(record.levelname) if self._colours else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


class _Logfmt(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = visible(self.text(record).replace("\\", "\\\\")).replace('"', '\\"')
        part = f"{record.name} thread={record.threadName}"
        return f'time={_stamp(record)} level={record.levelname.lower()} part={part} msg="{text}"'


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "part": record.name,
            "thread": record.threadName,
            "msg": self.text(record),
        }
        return json.dumps(event)
