"""The raw encoder: the messages and nothing else, each in a line."""

import pytest

from hostagent.model import Batch, Encoded, Text
from hostagent.process.message_lines import RawLinesEncoder


@pytest.mark.parametrize(
    "batch,lines",
    [
        (Batch(rows=-1, constants={"a": 1}, text=Text(("message",), b"x\n\ny\n", (b"\n",))), b"x\n\ny\n"),
        (Batch(rows=-1, constants={}, text=Text(("message",), b"A\n b\x1eC\x1e", (b"\x1e",))), b"A\n b\nC\n"),
        (
            Batch(rows=-1, constants={}, text=Text(("t", "message"), b"1 a\\u0022\n", (b" ", b"\n"), escaped=True)),
            b'a"\n',
        ),
        (Batch(rows=1, constants={}, names=("message", "t"), cells=[b"x", b"1"]), b"x\n"),
        (Batch(rows=1, constants={"c": 1}, names=("a",), cells=[b"x"]), b'{"c":1,"a":"x"}\n'),
        (Batch(rows=2, constants={"c": 1}, records=[{"message": "m"}, {"a": 2}]), b'm\n{"c":1,"a":2}\n'),
    ],
)
def test_messages_are_lines(batch: Batch, lines: bytes) -> None:
    encoder = RawLinesEncoder()
    made = encoder.encode(batch, 0)
    assert made == Encoded(lines, lines.count(b"\n"))
    assert encoder.split(encoder.join([made.payload, made.payload])) == (lines + lines).splitlines(keepends=True)
