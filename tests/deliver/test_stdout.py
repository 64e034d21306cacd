"""Standard output: records as they are for programs, readable and harmless lines for people."""

from __future__ import annotations

import os
import pty
import threading

import pytest

from hostagent.deliver.outputs.blackhole import BlackholeOptions, BlackholeOutput
from hostagent.deliver.outputs.stdout import StdoutOptions, StdoutOutput, pretty_lines
from hostagent.errors import TemporaryError
from hostagent.model import Delivery
from tests.deliver.stage import Stage
from tests.support.waiting import wait_for

BODY = b'{"message":"hello","time":"12:00","path":"/var/log/a.log","level":"info","n":3}\n{"message":"two"}\n'


def delivery(body: bytes = BODY) -> Delivery:
    return Delivery("1", body, "application/x-ndjson", "none", 2, 1)


def test_a_pipe_gets_the_records_as_they_are() -> None:
    reading, writing = os.pipe()
    StdoutOutput(StdoutOptions(), writing).send(delivery())
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == BODY


def test_a_body_larger_than_the_pipe_arrives_whole() -> None:
    reading, writing = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    StdoutOutput(StdoutOptions(), writing).send(delivery(b"x" * 1_000_000))
    os.close(writing)
    reader.join(20)
    assert len(got[0]) == 1_000_000


def test_a_pipe_that_does_not_block_gets_everything_once() -> None:
    """Whoever shares the other end of a terminal or a pipe may have set that."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    body = b"".join(b"%07d\n" % number for number in range(20_000))
    output = StdoutOutput(StdoutOptions(), writing)
    got = bytearray()
    with os.fdopen(reading, "rb", buffering=0) as file:
        for _ in range(100):
            try:
                output.send(delivery(body))
                break
            except TemporaryError:  # nobody has read, and the delivery comes again
                got += file.read(100_000)
        os.close(writing)
        got += file.readall()
    assert bytes(got) == body


def test_a_terminal_gets_lines_for_people() -> None:
    reading, writing = pty.openpty()
    StdoutOutput(StdoutOptions(), writing).send(delivery(b'{"message":"hello","path":"/a"}\n'))
    shown = os.read(reading, 1000).decode()
    os.close(writing)
    os.close(reading)
    assert shown == "\x1b[36m/a\x1b[0m hello\r\n"


def test_a_reader_that_has_gone_is_said_and_not_fatal() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(TemporaryError, match="closed by whoever read it") as caught:
        StdoutOutput(StdoutOptions(), writing).send(delivery())
    assert (caught.value.delay_s or 0) >= 60
    os.close(writing)


def test_a_lane_says_that_its_output_is_gone() -> None:
    reading, writing = os.pipe()
    stage = Stage(StdoutOutput(StdoutOptions(), writing))
    stage.lane.start()
    stage.block(b"one")
    wait_for(stage.lane.idle, "the first block")
    assert not stage.lane.gone
    os.close(reading)
    stage.block(b"two")
    wait_for(lambda: stage.lane.gone, "gone")
    stage.end(deadline_s=0.1)
    os.close(writing)


def test_a_line_shows_time_origin_message_and_the_other_fields() -> None:
    assert list(pretty_lines(BODY, colour=False)) == ["12:00 /var/log/a.log hello level=info n=3\n", "two\n"]


def test_no_control_character_of_a_record_reaches_the_terminal() -> None:
    body = rb'{"message":"a\u001b[2Jb\r\u0007\u009b1m\u202e","p\u001b":"\u001b]0;x"}' + b"\n"
    (line,) = pretty_lines(body, colour=False)
    assert line.removesuffix("\n").isprintable()
    assert line == "a\\x1b[2Jb\\x0d\\x07\\x9b1m\\x202e p\\x1b=\\x1b]0;x\n"


def test_lines_of_a_record_are_indented_and_text_that_is_no_json_is_shown() -> None:
    body = b'{"message":"one\\ntwo"}\nplain \x1b text \xff\n[1]\n'
    assert list(pretty_lines(body, colour=False)) == ["one\n    two\n", "plain \\x1b text \ufffd\n", "[1]\n"]


def test_the_blackhole_counts() -> None:
    hole = BlackholeOutput()
    hole.send(delivery())
    hole.send(delivery())
    assert (hole.records, hole.body_bytes) == (4, 2 * len(BODY))
    assert BlackholeOptions.default_compression == "none"
