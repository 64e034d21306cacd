"""The regex parser: each record's fields are those a plain search in its message gives, on every road."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.config.model import MultilineConfig
from hostagent.hookspecs import Framing
from hostagent.process.chain import Chain
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.docker_json import DockerJsonFraming
from hostagent.process.framing.raw import RawFraming
from hostagent.process.multiline import Multiline
from hostagent.process.parse_regex import RegexOptions, RegexParser
from hostagent.process.scan import SLICE_LENGTH
from tests.process.reading import CONSTANTS, assert_cuts_do_not_show, bare, whole

PATTERNS = [
    r"^(?P<ip>\S+) (?P<rest>.*)$",
    r"^(?P<word>\S*)",
    r"^(?P<a>\w*)(?P<b>[^a-z]?)",
    r'"(?P<quoted>[^"]*)"',
    r"(?P<time>a)|(?P<message>b+)",
    r"^(?P<host>\w*)(?P<x>(?: \w)?)",
    r"(?P<none>)",
    r"(\w)(?P<second>\w)?( )",
    r"(?P<word>é\w*)",
    r"\B(?P<inner>\w)",
    r"(?P<all>(?s:.)+)",
]
message = st.lists(st.sampled_from(["a", "bb", " ", '"', "é", "\t", "x y", "\\", "1.2.3.4 - "]), max_size=6).map(
    "".join
)
messages = st.lists(message, max_size=10)
patterns = st.sampled_from(PATTERNS)
stops = st.lists(st.integers(0, 300), max_size=4)


def chain(pattern: str, framing: Framing | None = None, **options: Any) -> Chain:  # noqa: ANN401 - of Chain
    return Chain(framing=framing or RawFraming(), parser=RegexParser(RegexOptions(pattern=pattern)), **options)


def parsed(pattern: str, text: str, around: dict[str, str] | None = None) -> dict[str, str]:
    found = re.search(pattern, text, re.ASCII)
    if found is None:
        return {**(around or {}), "message": text}
    return {**(around or {}), **{name: value or "" for name, value in found.groupdict().items()}}


def without_host(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CONSTANTS}


@pytest.mark.parametrize("pattern", PATTERNS)
@given(messages)
def test_fields_are_what_a_search_in_each_line_finds(pattern: str, texts: list[str]) -> None:
    done = whole(chain(pattern), "".join(f"{text}\n" for text in texts).encode())
    assert bare(done.batches) == [without_host(parsed(pattern, text)) for text in texts]
    assert done.unparsed == sum(re.search(pattern, text, re.ASCII) is None for text in texts)


@given(patterns, messages, stops)
def test_cuts_between_reads_do_not_show(pattern: str, texts: list[str], at: list[int]) -> None:
    assert_cuts_do_not_show(chain(pattern), "".join(f"{text}\n" for text in texts).encode(), at)


@given(patterns, st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), message), max_size=8), st.booleans())
def test_the_runtimes_columns_stay_beside_the_fields(
    pattern: str, written: list[tuple[str, str]], docker: bool
) -> None:
    time = "2024-05-01T10:00:00Z"
    if docker:
        quoted = [
            (stream, text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")) for stream, text in written
        ]
        lines = [f'{{"log":"{text}\\n","stream":"{stream}","time":"{time}"}}\n' for stream, text in quoted]
    else:
        lines = [f"{time} {stream} F {text}\n" for stream, text in written]
    framing: Framing = DockerJsonFraming() if docker else CriFraming()
    records = bare(whole(chain(pattern, framing), "".join(lines).encode()).batches)
    expected = [parsed(pattern, text, {"time": time, "stream": stream}) for stream, text in written]
    assert records == [without_host(record) for record in expected]


@given(patterns, messages)
def test_a_record_of_several_lines_is_searched_as_a_whole(pattern: str, texts: list[str]) -> None:
    groups = [f"A{text}\n {text}" for text in texts]
    multiline = Multiline(MultilineConfig(start="^A"))
    records = bare(whole(chain(pattern, multiline=multiline), "".join(f"{one}\n" for one in groups).encode()).batches)
    assert records == [without_host(parsed(pattern, one)) for one in groups]


def test_lines_that_do_not_match_lead_only_their_neighbourhood_astray() -> None:
    """Many slices, with lines that no quote ends here and there, and white space of every kind."""
    texts = [f'line {number} "{"x" * (number % 97)}" end' for number in range(4 * SLICE_LENGTH // 40)]
    for number in range(0, len(texts), 61):
        texts[number] = f'line "{number}'
    for blank in ("", "\t"):
        pattern = r'^(?P<word>\S+) (?P<number>\d+) "(?P<quoted>[^"]*)"'
        data = "".join(f"{text}{blank}\n" for text in texts).encode()
        done = whole(chain(pattern), data)
        assert bare(done.batches) == [parsed(pattern, text + blank) for text in texts]
        assert done.unparsed == len(range(0, len(texts), 61))


def test_invalid_utf8_is_repaired_before_it_is_parsed() -> None:
    done = whole(chain(r"^(?P<a>.)(?P<b>.*)"), b"\xff\xe9x\nok\n")
    assert bare(done.batches) == [{"a": "\ufffd", "b": "\ufffdx"}, {"a": "o", "b": "k"}]
    assert done.invalid_utf8 == 1


def test_records_without_a_message_pass_and_count_as_unparsed() -> None:
    done = whole(chain(r"(?P<a>x)", invalid_utf8="base64"), b"x\n\xff\n")
    assert bare(done.batches) == [{"a": "x"}, {"message_base64": "/w=="}]
    assert done.unparsed == 1


@pytest.mark.parametrize(
    "pattern,problem", [("(", "no regular expression"), ("x", "no named group"), ("(?u)(?P<a>x)", "no regular")]
)
def test_a_pattern_that_cannot_make_fields_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"pattern: .*{problem}"):
        RegexOptions(pattern=pattern)
