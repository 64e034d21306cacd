"""Multiline: the lines of a record come out as one record, however the file is read and whatever lies between them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.config.model import MultilineConfig
from hostagent.hookspecs import Framing
from hostagent.process.chain import Chain
from hostagent.process.charset import charset_of
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.docker_json import DockerJsonFraming
from hostagent.process.framing.raw import RawFraming
from hostagent.process.grouping import SILENCE_BYTES
from hostagent.process.multiline import Multiline
from hostagent.process.repair import InvalidUtf8
from tests.process.reading import CONSTANTS, assert_cuts_do_not_show, bare, whole

CONFIGS: list[dict[str, Any]] = [
    {"start": "^A"},
    {"start": "A"},
    {"start": r"^\s", "negate": True},
    {"continue_": r"^\s"},
    {"continue_": r"^[^A]"},
    {"end": ";$"},
    {"end": "^;", "start": "^A"},
    {"start": "^A", "continue_": "^ "},
    {"start": r"^(A|é)(?P<g>.)?"},
    {"start": r"\BA"},
    {"start": ""},
    {"start": "^$"},
    {"start": "^A", "max_bytes": 6},
    {"continue_": "", "max_bytes": 4},
]
LINES = ["A", "Ab", " x", "\tat", "", ";", "b;", "é", "xA", "\x1e", "\0", "\x7f", "^~`|", '"\\']
lines = st.lists(st.sampled_from(LINES), max_size=12)
stops = st.lists(st.integers(0, 60), max_size=5)
hows: st.SearchStrategy[InvalidUtf8] = st.sampled_from(["replace", "base64"])
configs = st.sampled_from(CONFIGS)


def chain(config: dict[str, Any], framing: Framing | None = None, **options: Any) -> Chain:  # noqa: ANN401 - of Chain
    return Chain(framing=framing or RawFraming(), multiline=Multiline(MultilineConfig(**config)), **options)


def grouped(config: dict[str, Any], texts: list[str]) -> list[str]:
    """What the documentation says, line by line."""

    def found(name: str, text: str) -> bool:
        negate: bool = config.get("negate", False)
        return (re.search(config[name], text, re.ASCII) is not None) != negate

    groups: list[str] = []
    ended = True
    for text in texts:
        opens = ended or ("start" in config and found("start", text))
        opens = opens or ("continue_" in config and not found("continue_", text))
        opens = opens or len(f"{groups[-1]}\n{text}".encode()) > config.get("max_bytes", 1 << 20)
        if opens:
            groups.append(text)
        else:
            groups[-1] += f"\n{text}"
        ended = "end" in config and found("end", text)
    return groups


def messages(one: Chain, data: bytes) -> list[str]:
    return [record["message"] for record in bare(whole(one, data).batches)]


@given(configs, lines)
def test_lines_are_joined_as_the_patterns_say(config: dict[str, Any], texts: list[str]) -> None:
    assert messages(chain(config), "".join(f"{text}\n" for text in texts).encode()) == grouped(config, texts)


@given(configs, lines, stops)
def test_cuts_between_reads_do_not_show(config: dict[str, Any], texts: list[str], at: list[int]) -> None:
    data = "".join(f"{text}\n" for text in texts).encode()
    assert_cuts_do_not_show(chain(config), data, at)
    assert_cuts_do_not_show(chain(config, max_line_bytes=4), data, at)


@given(configs, lines, stops)
def test_cuts_do_not_show_in_other_encodings(config: dict[str, Any], texts: list[str], at: list[int]) -> None:
    data = "".join(f"{text}\n" for text in texts).encode("utf-16-le")
    charset = charset_of("utf-16-le")
    one = chain(config, RawFraming(charset), charset=charset)
    assert messages(one, data) == grouped(config, texts)
    assert_cuts_do_not_show(one, data, at)


@given(configs, st.lists(st.binary(max_size=6), max_size=8), stops, hows)
def test_cuts_do_not_show_in_garbage(
    config: dict[str, Any], garbage: list[bytes], at: list[int], how: InvalidUtf8
) -> None:
    assert_cuts_do_not_show(chain(config, invalid_utf8=how), b"\nA".join(garbage), at)


def container_lines(form: str, written: list[tuple[str, str]]) -> bytes:
    if form == "cri":
        return "".join(f"2024-05-01T10:00:00Z {stream} F {text}\n" for stream, text in written).encode()
    escaped = [
        (stream, text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")) for stream, text in written
    ]
    return "".join(
        f'{{"log":"{text}\\n","stream":"{stream}","time":"2024-05-01T10:00:00Z"}}\n' for stream, text in escaped
    ).encode()


container_writes = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]), st.sampled_from(["A", "Ab", " x", "", ";", "b;", "é", "xA", '"\\'])
    ),
    max_size=12,
)
FRAMINGS: dict[str, Framing] = {"cri": CriFraming(), "docker": DockerJsonFraming()}


@given(st.sampled_from(sorted(FRAMINGS)), configs, container_writes, st.lists(st.integers(0, 900), max_size=5))
def test_each_stream_of_a_container_is_joined_for_itself(
    form: str, config: dict[str, Any], written: list[tuple[str, str]], at: list[int]
) -> None:
    data = container_lines(form, written)
    one = chain(config, FRAMINGS[form])
    records = bare(whole(one, data).batches)
    for stream in ("stdout", "stderr"):
        texts = [text for name, text in written if name == stream]
        assert [record["message"] for record in records if record["stream"] == stream] == grouped(config, texts)
    assert_cuts_do_not_show(one, data, at)


@given(configs, container_writes, st.lists(st.booleans(), max_size=12), st.lists(st.integers(0, 900), max_size=5))
def test_parts_of_lines_are_joined_before_lines_are(
    config: dict[str, Any], written: list[tuple[str, str]], ends: list[bool], at: list[int]
) -> None:
    lines = container_lines("cri", written).splitlines(keepends=True)
    parts = [line if end else line.replace(b" F ", b" P ", 1) for line, end in zip(lines, ends, strict=False)]
    data = b"".join([*parts, *lines[len(parts) :]])
    one = chain(config, FRAMINGS["cri"])
    joined = bare(whole(Chain(framing=CriFraming()), data).batches)
    records = bare(whole(one, data).batches)
    for stream in ("stdout", "stderr"):
        texts = [record["message"] for record in joined if record["stream"] == stream]
        assert [record["message"] for record in records if record["stream"] == stream] == grouped(config, texts)
    assert_cuts_do_not_show(one, data, at)


def test_the_last_group_waits_for_the_line_that_ends_it() -> None:
    done = chain({"start": "^A"}).process(b"A\n b\nA\n c\n", CONSTANTS, final=False)
    assert [one["message"] for one in bare(done.batches)] == ["A\n b"]
    assert done.consumed == 5
    ended = chain({"end": ";$"}).process(b"A\nb;\nc\n", CONSTANTS, final=False)
    assert ended.consumed == 5


def test_a_silent_stream_does_not_hold_the_other_one_back_for_ever() -> None:
    one = chain({"start": "^A"}, CriFraming())
    data = container_lines("cri", [("stderr", "A warning"), *[("stdout", "A line")] * (SILENCE_BYTES // 20)])
    done = one.process(data, CONSTANTS, final=False)
    assert done.consumed > SILENCE_BYTES
    assert bare(done.batches)[0]["message"] == "A warning"
    few = container_lines("cri", [("stderr", "A warning"), *[("stdout", "A line")] * 20])
    assert one.process(few, CONSTANTS, final=False).consumed == 0


def test_what_never_ends_is_taken_at_the_chains_reach() -> None:
    config = {"continue_": "^x", "max_bytes": 2048}
    one = chain(config, CriFraming(), max_line_bytes=1024)
    woven = container_lines("cri", [("stdout", "x"), ("stderr", "x")] * (one.reach_bytes // 60))
    done = one.process(woven[: one.reach_bytes], CONSTANTS, final=False)
    assert done.consumed > 0


def test_invalid_bytes_are_counted_when_their_record_is_taken() -> None:
    one = chain({"start": "^A"})
    data = b"A\xff\n \xff\nA\xff\n"
    assert one.process(data, CONSTANTS, final=False).invalid_utf8 == 2
    assert one.process(data, CONSTANTS, final=True).invalid_utf8 == 3


def test_pieces_of_a_long_line_stand_alone() -> None:
    records = bare(whole(chain({"start": "^A"}, max_line_bytes=8), b"A\n b\n0123456789abcdef\n c\n").batches)
    assert [(one["message"], one.get("partial")) for one in records] == [
        ("A\n b", None),
        ("01234567", True),
        ("89abcdef\n c", None),
    ]


@pytest.mark.parametrize("pattern", ["(", "(?u)x"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        Multiline(MultilineConfig(start=pattern))
