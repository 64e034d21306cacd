"""The cri, docker-json and auto framings: what a container wrote comes out, however runtime and reader cut it."""

from collections.abc import Callable
from typing import NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.hookspecs import Framing
from hostagent.process.chain import Chain
from hostagent.process.framing.auto import AutoFraming
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.docker_json import DockerJsonFraming
from hostagent.process.framing.joining import reach_bytes
from hostagent.process.repair import InvalidUtf8
from tests.process.reading import CONSTANTS, assert_cuts_do_not_show, bare, encoded, whole

FRAMINGS: dict[str, Callable[[], Framing]] = {"cri": CriFraming, "docker": DockerJsonFraming, "auto": AutoFraming}
TIME = "2024-05-01T10:00:00.%dZ"
HOSTILE = [
    "",
    "x",
    " stdout F ",
    '","stream":"stdout","time":"',
    '"}\n{"log":"',
    "\\n",
    "\\",
    '"',
    "<é🚀\u2028",
    "\r",
    "\t",
    "\0",
]
words = st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join)
stops = st.lists(st.integers(0, 900), max_size=6)
streams = st.sampled_from(["stdout", "stderr"])


class Written(NamedTuple):
    """One write of a container: the parts the runtime made of it, or a line that is not of its form."""

    stream: str
    parts: list[str]


writes = st.lists(
    st.one_of(
        st.builds(Written, streams, st.lists(words, min_size=1, max_size=3)),
        st.builds(Written, st.just("stdout"), st.lists(words, min_size=1, max_size=1)),
        st.builds(Written, st.just("junk"), st.lists(words, min_size=1, max_size=1)),
    ),
    max_size=8,
)


def clean(text: str, form: str) -> str:
    return text.replace("\n", "") if form == "cri" else text


def line(form: str, stream: str, time: str, text: str, *, ends: bool) -> bytes:
    if stream == "junk":
        return text.replace("\n", "").encode() + b"\n"
    if form == "cri":
        return f"{time} {stream} {'F' if ends else 'P'} {clean(text, form)}\n".encode()
    # Go escapes what HTML would take for its own.
    log = orjson.dumps(text + "\n" * ends).replace(b"<", b"\\u003c")
    return b'{"log":%s,"stream":"%s","time":"%s"}\n' % (log, stream.encode(), time.encode())


def log_file(form: str, written: list[Written], weave: bool) -> bytes:
    """The lines of a log; woven, the parts of two streams' writes lie across each other."""
    lines = []
    for number, (stream, parts) in enumerate(written):
        made = [
            line(form, stream, TIME % number, part, ends=index == len(parts) - 1) for index, part in enumerate(parts)
        ]
        lines.append((stream, made))
    if not weave:
        return b"".join(one for _, made in lines for one in made)
    queues = {
        name: [one for stream, made in lines if stream == name for one in made] for name in ("stdout", "junk", "stderr")
    }
    return b"".join(queue[turn] for turn in range(30) for queue in queues.values() if turn < len(queue))


@given(st.sampled_from(["cri", "docker"]), writes, st.booleans())
def test_every_write_is_one_record_of_its_stream(form: str, written: list[Written], weave: bool) -> None:
    records = bare(whole(Chain(framing=FRAMINGS[form]()), log_file(form, written, weave)).batches)
    for stream in ("stdout", "stderr"):
        expected = [
            (clean("".join(one.parts), form), TIME % number)
            for number, one in enumerate(written)
            if one.stream == stream
        ]
        got = [(one["message"], one["time"]) for one in records if one.get("stream") == stream]
        assert got == expected
    junk = [one.parts[0].replace("\n", "") for one in written if one.stream == "junk"]
    assert [one["message"] for one in records if "stream" not in one] == junk


@given(st.sampled_from(["cri", "docker"]), writes, st.booleans(), stops, st.sampled_from([8, 40, 1 << 20]))
def test_cuts_between_reads_do_not_show(
    form: str, written: list[Written], weave: bool, at: list[int], limit: int
) -> None:
    chain = Chain(framing=FRAMINGS[form](), max_line_bytes=limit)
    assert_cuts_do_not_show(chain, log_file(form, written, weave), at)


@pytest.mark.parametrize("form", ["cri", "docker"])
@given(st.lists(st.tuples(streams, words), min_size=1, max_size=8))
def test_every_road_gives_the_same_bytes(form: str, written: list[tuple[str, str]]) -> None:
    lines = [line(form, stream, TIME % 1, text, ends=True) for stream, text in written]
    chain = Chain(framing=FRAMINGS[form]())
    one_by_one = b"".join(encoded(whole(chain, one).batches) for one in lines)
    partial = line(form, "stderr", TIME % 2, "x", ends=False)
    slow = encoded(whole(chain, b"".join(lines) + partial).batches)
    assert encoded(whole(chain, b"".join(lines)).batches) == one_by_one
    assert slow == one_by_one + encoded(whole(chain, partial).batches)


@given(st.binary(max_size=200), stops)
@pytest.mark.parametrize("form", ["cri", "docker"])
def test_garbage_is_carried_line_by_line(form: str, data: bytes, at: list[int]) -> None:
    chain = Chain(framing=FRAMINGS[form]())
    assert_cuts_do_not_show(chain, data, at)
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    assert [one["message"] for one in bare(whole(chain, data).batches)] == [
        line.decode("utf-8", "replace") for line in lines
    ]


@pytest.mark.parametrize("form", ["cri", "docker"])
def test_an_open_record_stays_in_the_file_with_what_comes_after_its_start(form: str) -> None:
    first = line(form, "stdout", TIME % 1, "done", ends=True)
    data = first + line(form, "stdout", TIME % 2, "a", ends=False) + line(form, "stderr", TIME % 3, "b", ends=True)
    done = Chain(framing=FRAMINGS[form]()).process(data, CONSTANTS, final=False)
    assert done.consumed == len(first)
    assert [one["message"] for one in bare(done.batches)] == ["done"]
    final = whole(Chain(framing=FRAMINGS[form]()), data)
    assert [(one["message"], one.get("partial")) for one in bare(final.batches)] == [
        ("done", None),
        ("b", None),
        ("a", None),
    ]


@pytest.mark.parametrize("form", ["cri", "docker"])
def test_a_record_that_never_ends_is_cut_and_marked(form: str) -> None:
    data = b"".join(line(form, "stdout", TIME % 1, "x" * 16, ends=False) for _ in range(5))
    records = bare(whole(Chain(framing=FRAMINGS[form](), max_line_bytes=32), data).batches)
    assert [(len(one["message"]), one.get("partial")) for one in records] == [(32, True), (32, True), (16, None)]


@pytest.mark.parametrize("form", ["cri", "docker"])
def test_an_open_record_holds_the_other_stream_back_only_so_far(form: str) -> None:
    chain = Chain(framing=FRAMINGS[form](), max_line_bytes=4096)
    data = line(form, "stdout", TIME % 1, "open", ends=False)
    data += line(form, "stderr", TIME % 2, "x" * 100, ends=True) * 200
    done = chain.process(data[: reach_bytes(4096)], CONSTANTS, final=False)
    assert done.consumed > 0
    assert {"stream": "stdout", "partial": True} in [
        {name: one[name] for name in ("stream", "partial")} for one in bare(done.batches) if "partial" in one
    ]


def test_a_text_ending_with_backslash_n_is_not_a_line_feed() -> None:
    chain = Chain(framing=DockerJsonFraming())
    parts = line("docker", "stdout", TIME % 1, "C:\\n", ends=False) + line(
        "docker", "stdout", TIME % 1, "ew", ends=True
    )
    assert [one["message"] for one in bare(whole(chain, parts).batches)] == ["C:\\new"]
    assert [
        one["message"] for one in bare(whole(chain, line("docker", "stdout", TIME % 1, "a\\", ends=True)).batches)
    ] == ["a\\"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"log":"a\\n","stream":"stdout","time":"t\\n","stream":"stdout","time":"2024"}\n{"log":"b"}\n',
        b'{"log":"a"b\\n","stream":"stdout","time":"2024"}\n',
        b'{"log":"\\q\\n","stream":"stdout","time":"2024"}\n',
        b'{"log":"\\ud800\\n","stream":"stdout","time":"2024"}\n',
        b'{"log":17,"stream":"stdout","time":"2024"}\n',
        b'{"log":"\xff\\n","stream":"stdout","time":"2024"}\n',
        b'{"time":"2024","stream":"stdout","log":"a\\n"}\n\n{"log":"b\\n", "stream":"stdout","time":"2024"}\n',
        b'{"log":"a\\n","stream":"\\u0022","time":"20\\u001024"}\n',
    ],
)
def test_forged_docker_lines_give_one_valid_record_each(text: bytes) -> None:
    good = line("docker", "stdout", TIME % 1, "good", ends=True)
    records = bare(whole(Chain(framing=DockerJsonFraming()), good + text + good).batches)
    assert len(records) == 2 + text.count(b"\n")
    assert records[0] == records[-1] == {"message": "good", "stream": "stdout", "time": TIME % 1}


@pytest.mark.parametrize("how", ["replace", "base64"])
def test_a_docker_line_that_is_no_utf8_is_repaired_whatever_is_chosen(how: InvalidUtf8) -> None:
    text = b'{"log":"\\u003c\xff\\"\\n","stream":"stdout","time":"2024-05-01T10:00:00Z"}\n'
    done = whole(Chain(framing=DockerJsonFraming(), invalid_utf8=how), text + text.replace(b"\xff", b"x"))
    assert [one["message"] for one in bare(done.batches)] == ['<\ufffd"', '<x"']
    assert done.invalid_utf8 == 1


def test_attributes_and_other_keys_of_a_docker_line_do_not_hide_it() -> None:
    text = b'{"log":"a\\n","stream":"stderr","attrs":{"tag":"x"},"time":"2024-05-01T10:00:00Z"}\n'
    assert bare(whole(Chain(framing=DockerJsonFraming()), text).batches) == [
        {"stream": "stderr", "message": "a", "time": "2024-05-01T10:00:00Z"}
    ]


def test_auto_knows_each_form_by_its_first_line() -> None:
    chain = Chain(framing=AutoFraming())
    for form in ("cri", "docker"):
        data = line(form, "stdout", TIME % 1, "a", ends=True) + line(form, "stderr", TIME % 1, "b", ends=True)
        assert [one["message"] for one in bare(whole(chain, data).batches)] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        '{"log":"a","level":"info"}',
        '{"log":"a\\n","stream":"stdout","time":"yesterday"}',
        '{"level":"info","log":"a\\n","stream":"stdout","time":"2024-05-01T10:00:00Z"}',
        "2024-05-01T10:00:00Z stdout is full",
        "2024-05-01 10:00:00 stdout F text",
    ],
)
def test_auto_leaves_lines_alone_that_only_look_similar(text: str) -> None:
    chain = Chain(framing=AutoFraming())
    data = text.encode() + b"\nnext\n"
    assert [one["message"] for one in bare(whole(chain, data).batches)] == [text, "next"]


@given(writes, stops, st.sampled_from(["cri", "docker"]))
def test_cuts_do_not_show_in_auto(written: list[Written], at: list[int], form: str) -> None:
    of_one_form = [one for one in written if one.stream != "junk"]
    assert_cuts_do_not_show(Chain(framing=AutoFraming()), log_file(form, of_one_form, weave=False), at)
