"""The agent's log is one line per event whatever is in it, and what repeats is told once with a count."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from hostagent.config.model import LogConfig
from hostagent.observe.log import MAX_REMEMBERED, Repeats, start_logging

log = logging.getLogger("hostagent.sample")
NASTY = 'a\n2026-01-01 ERROR fake\x1b[2J\r\u202ex "q" \\ \udcff'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    kept, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    root.handlers[:] = kept
    root.setLevel(level)
    logging.raiseExceptions = raising


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_key_value_lines_hold_hostile_text_in_one_line() -> None:
    stream = io.StringIO()
    start_logging(LogConfig(), stream)
    log.warning("got %s", NASTY)
    (line,) = stream.getvalue().splitlines()
    assert " level=warning part=hostagent.sample thread=MainThread " in line
    assert line.endswith(r'msg="got a\n2026-01-01 ERROR fake\x1b[2J\r\u202ex \"q\" \\ \xff"')


def test_json_lines_are_json_with_the_text_unchanged() -> None:
    stream = io.StringIO()
    start_logging(LogConfig(format="json"), stream)
    log.error("got %s", NASTY)
    (line,) = stream.getvalue().split("\n")[:-1]
    event = json.loads(line)
    assert (event["level"], event["part"], event["msg"]) == ("error", "hostagent.sample", "got " + NASTY)


def test_a_terminal_gets_colours_of_ours_and_no_escapes_of_others() -> None:
    stream = Terminal()
    start_logging(LogConfig(), stream)
    log.error("got %s", NASTY)
    text = stream.getvalue()
    assert text.startswith("\x1b[31m")
    assert "\x1b[2J" not in text
    assert "\n    2026-01-01" in text


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    start_logging(LogConfig(), stream)
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("failed")
    assert len(stream.getvalue().splitlines()) == 1
    assert "ValueError: x" in stream.getvalue()


def test_the_level_is_the_configured_one() -> None:
    stream = io.StringIO()
    start_logging(LogConfig(level="error"), stream)
    log.warning("not told")
    log.error("told")
    assert stream.getvalue().count("\n") == 1


def record(text: str, created_s: float, line: int = 1) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.WARNING, "x.py", line, "%s", (text,), None)
    made.created = created_s
    return made


def test_repeats_are_held_back_and_counted() -> None:
    repeats = Repeats(window_s=30.0)
    passed = [(at_s, one) for at_s in range(65) if repeats.filter(one := record("refused", 1000.0 + at_s))]
    assert [(at_s, one.getMessage()) for at_s, one in passed] == [
        (0, "refused"),
        (30, "refused (and 29 times more in the last 30 s)"),
        (60, "refused (and 29 times more in the last 30 s)"),
    ]
    assert repeats.filter(record("refused", 1000.0, line=2))
    assert repeats.filter(record("reset", 1000.0))


def test_a_clock_set_back_silences_nothing() -> None:
    repeats = Repeats(window_s=30.0)
    assert repeats.filter(record("refused", 5000.0))
    assert repeats.filter(record("refused", 1000.0))


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(window_s=30.0)
    assert repeats.filter(record("first", 1.0))
    for number in range(MAX_REMEMBERED):
        repeats.filter(record(str(number), 1.0))
    assert repeats.filter(record("first", 2.0))
