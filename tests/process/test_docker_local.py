"""The docker-local framing: what a container wrote comes out, however the file is read and whatever was damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.process.chain import Chain
from hostagent.process.framing.docker_local import MOST_BYTES, DockerLocalFraming, FrameBreaks, plain_cells
from tests.process.reading import assert_cuts_do_not_show, bare, whole

TIME_NS = 1_714_557_600_000_000_000
stops = st.lists(st.integers(0, 900), max_size=6)


class Part(NamedTuple):
    stream: str
    line: bytes
    partial: bool = False
    last: bool = False


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def frame(message: bytes) -> bytes:
    length = len(message).to_bytes(4, "big")
    return length + message + length


def written(part: Part, number: int) -> bytes:
    """A record as Docker writes it."""
    message = field(1, part.stream.encode()) + b"\x10" + varint(TIME_NS + number) + field(3, part.line)
    if part.partial:
        metadata = (b"\x08\x01" if part.last else b"") + field(2, b"f" * 64) + b"\x18\x01"
        message += b"\x20\x01" + field(5, metadata)
    return frame(message)


def file_of(*parts: Part) -> bytes:
    return b"".join(written(part, number) for number, part in enumerate(parts))


def chain(limit: int = 1 << 20) -> Chain:
    return Chain(framing=DockerLocalFraming(), max_line_bytes=limit, breaks=FrameBreaks())


texts = st.sampled_from(
    [b"", b"x", b"\n\x06stdout\x10", b"\0\0\0\x16\n\x06stdout\x10", b"a\nb", "é🚀".encode(), b'"\\']
)
parts = st.builds(Part, st.sampled_from(["stdout", "stderr"]), texts, st.booleans(), st.booleans())


def test_a_record_has_text_stream_and_time() -> None:
    done = whole(chain(), file_of(Part("stdout", b"one"), Part("stderr", b"")))
    assert bare(done.batches) == [
        {"message": "one", "stream": "stdout", "time": "2024-05-01T10:00:00.000000000Z"},
        {"message": "", "stream": "stderr", "time": "2024-05-01T10:00:00.000000001Z"},
    ]


def test_parts_are_joined_for_each_stream() -> None:
    data = file_of(
        Part("stdout", b"a" * 16384, partial=True),
        Part("stderr", b"between"),
        Part("stdout", b"b", partial=True, last=True),
        Part("stdout", b"next"),
    )
    assert [one["message"] for one in bare(whole(chain(), data).batches)] == ["between", "a" * 16384 + "b", "next"]


def test_what_is_not_written_whole_is_left_in_the_file() -> None:
    data = file_of(Part("stdout", b"one"), Part("stdout", b"two"))
    first = len(file_of(Part("stdout", b"one")))
    for end in range(first, len(data)):
        assert chain().process(data[:end], {}, final=False).consumed == first
        assert chain().whole_lines(data[:end]) == first
    assert chain().whole_lines(data) == len(data)


@given(st.lists(parts, max_size=8), stops)
def test_where_the_reads_end_does_not_show(written_parts: list[Part], where: list[int]) -> None:
    assert_cuts_do_not_show(chain(), file_of(*written_parts), where)


@given(
    st.lists(parts, min_size=1, max_size=4),
    st.binary(max_size=80).map(lambda noise: noise.replace(b"std", b"")),
    st.lists(parts, min_size=1, max_size=4),
    stops,
    st.sampled_from([32, 1 << 20]),
)
def test_damage_costs_only_what_was_damaged(
    before: list[Part], noise: bytes, after: list[Part], where: list[int], limit: int
) -> None:
    clean = [part._replace(partial=False, line=b"=" + str(n).encode()) for n, part in enumerate([*before, *after])]
    data = file_of(*clean[: len(before)]) + noise + file_of(*clean[len(before) :])
    assert_cuts_do_not_show(chain(limit), data, where)
    found = [one["message"] for one in bare(whole(chain(limit), data).batches) if one.get("stream")]
    assert found == [part.line.decode() for part in clean]


@given(st.binary(max_size=300), stops)
def test_any_bytes_are_carried(data: bytes, where: list[int]) -> None:
    assert_cuts_do_not_show(chain(64), data, where)


@pytest.mark.parametrize(
    "message",
    [
        field(1, b"stdout") + b"\x10",
        field(1, b"stdout") + b"\x10\x01\x1a\x7fshort",
        field(1, b"stdout") + b"\x10" + b"\xff" * 11,
        field(1, b"stdout") + b"\x10\x01\x1b",
    ],
)
def test_a_record_that_is_no_message_is_carried_as_it_is(message: bytes) -> None:
    (one,) = bare(whole(chain(), frame(message)).batches)
    assert "stream" not in one
    assert "stdout" in one["message"]


def test_fields_of_later_versions_are_passed_over() -> None:
    later = b"\x30\x05" + field(9, b"new") + b"\x51" + bytes(8) + b"\x5d" + bytes(4)
    data = frame(field(1, b"stdout") + b"\x10\x01" + field(3, b"text") + later)
    assert [one["message"] for one in bare(whole(chain(), data).batches)] == ["text"]


def test_a_length_no_record_has_is_not_waited_for() -> None:
    data = (MOST_BYTES + 1).to_bytes(4, "big") + b"\n\x06stdout\x10" + file_of(Part("stdout", b"next"))
    done = chain().process(data, {}, final=False)
    assert done.consumed == len(data)
    assert bare(done.batches)[-1]["message"] == "next"


@given(st.integers(1 << 56, (1 << 63) - 1))
def test_every_nanosecond_of_our_time_is_told(time_ns: int) -> None:
    data = frame(field(1, b"stdout") + b"\x10" + varint(time_ns) + field(3, b""))
    (one,) = bare(whole(chain(), data).batches)
    second = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    assert one["time"] == f"{second:%Y-%m-%dT%H:%M:%S}.{time_ns % 1_000_000_000:09d}Z"


@given(st.lists(parts, max_size=8), st.sampled_from([3, 1 << 20]))
def test_both_roads_lead_to_the_same_records(written_parts: list[Part], limit: int) -> None:
    data = file_of(*written_parts)
    # A record of no plain shape, which sends all of them along the other road.
    longer = data + frame(field(1, b"stdout") + b"\x10\x01" + field(3, b"the end") + b"\x30\x05")
    expected = bare(whole(chain(limit), data).batches)
    _, starts, _ = plain_cells(longer, limit)
    assert len(starts) < len(bare(whole(chain(limit), longer).batches))
    if not any(part.partial for part in written_parts):
        assert bare(whole(chain(limit), longer).batches)[: len(expected)] == expected


def test_a_record_longer_than_any_is_damage_on_both_roads() -> None:
    data = file_of(Part("stdout", b"x" * (MOST_BYTES + 1)), Part("stdout", b"next"))
    assert plain_cells(data, 1 << 30) == ([], [], 0)
    assert_cuts_do_not_show(chain(), data, [100, 1000, len(data) - 20])


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 16385])
def test_lines_of_every_length_take_the_short_road(length: int) -> None:
    data = file_of(Part("stdout", b"x" * length), Part("stderr", b"y"))
    cells, starts, end = plain_cells(data, 1 << 20)
    assert [(stream, len(text)) for stream, text in zip(cells[1::3], cells[2::3], strict=True)] == [
        (b"stdout", length),
        (b"stderr", 1),
    ]
    assert (starts[0], end) == (0, len(data))
    assert [len(one["message"]) for one in bare(whole(chain(), data).batches)] == [length, 1]
