"""Which regular expressions a workload may bring along: none that any line could make slow."""

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.discovery.declarations.formats import parse_options
from hostagent.discovery.declarations.patterns import PatternError, anchored, check_pattern

LINE_CHARS = 20_000
# A linear pattern needs about a millisecond for such a line; a quadratic one a second, an exponential one for ever.
MANY_TIMES_LINEAR_S = 0.5


def is_taken(pattern: str) -> bool:
    try:
        check_pattern(pattern)
    except PatternError:
        return False
    return True


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}-\d{2} ",
        r"^(?P<time>\S+)\s+(?P<level>\w+) (?P<text>.*)$",
        r"^\[(?P<time>[^\]]*)\] (?P<text>.*)$",
        r"^\[(?P<time>.*?)\] (?P<text>.*)",
        r"^(?P<ip>(?:\d{1,3}\.){3}\d{1,3}) x",
        r"^\S+ (?:GET|POST|PUT) \S+",
        r"^(?:WARN|WARNING|INFO) .*$",
        r"^-?\d+(?:\.\d+)?\s*$",
        r"^(?:[a-z]+=[^ ]* )*$",
        r"^é+ [^é]*é",
    ],
)
def test_common_patterns_are_taken(pattern: str) -> None:
    assert is_taken(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"^(?:a|aa)+$",
        r"^(?:a{0,100}){0,100}$",
        r"^.*a.*b",
        r"^.*x[^y]*y",
        r"^(.*?) \[(.*?)\] (.*)$",
        r"^(?:.*,){11}P",
        r"^(?:[a-z]+=[^ ]* ?)*$",
        r"^(?:\d+|\w+)*$",
        r"^a?a?a?a?a?a?a?a?a?a?aaaaaaaaaa",
        r"^(a?){50}a{50}",
        r"^((){65535}){65535}",
        r"^(a*)*b",
        r"^(.)\1+$",
        r"^(?=.*a)(?=.*b)",
        r"^(?i:a+)a+$",
        r"(?s)^.*a",
        r"^é*é*x",
        r"^(?:\s|\S)*\s*x",
        r"^.*$[^q]*q",
        r"^\[(?P<time>.*?)\] (?P<text>.*)$",
        "^(",
        "(" * 3000 + ")" * 3000,
        "^" + "a" * 5000,
        "^(a)" * 100,
    ],
)
def test_patterns_that_can_be_slow_or_are_broken_are_not(pattern: str) -> None:
    assert not is_taken(pattern)


@pytest.mark.parametrize(
    "text, pattern",
    [
        (r"/^(?<a>\S+)$/", r"^(?P<a>\S+)$"),
        (r"\d+", r"^\d+"),
        ("a|b", "^(?:a|b)"),
        (r"(?<!x)y", r"^(?<!x)y"),
    ],
)
def test_rubys_writing_becomes_pythons(text: str, pattern: str) -> None:
    assert anchored(text) == pattern


PIECES = st.sampled_from(
    [
        *("a", "b", " ", "é", ".", r"\d", r"\w", r"\s", r"\S", r"\W", "[^a]", "[ab]", "[a-z]", "[^é]", "1"),
        *("a|b", "a|ab", "aa|ab", "a|", "$"),
    ]
)
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "*?", "+?", "{2}", "{1,3}", "{0,20}"])


@st.composite
def patterns(draw: st.DrawFn, depth: int = 2) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        piece = draw(patterns(depth - 1)) if depth and draw(st.booleans()) else draw(PIECES)
        repeat = draw(REPEATS)
        parts.append(f"(?:{piece}){repeat}" if repeat or "|" in piece else piece)
    return "".join(parts)


def nasty_lines(seed: int) -> list[str]:
    rng = random.Random(seed)
    units = ["a", "ab", "aé", "1a", " a", "1", "é", " ", "aa b", "".join(rng.choices("ab1 é", k=7))]
    return [unit * (LINE_CHARS // len(unit)) + end for unit in units for end in ("", "!", "\nmore")]


@given(patterns(), st.integers(0, 1000))
def test_no_line_makes_a_taken_pattern_slow(pattern: str, seed: int) -> None:
    pattern = anchored(pattern)
    if not is_taken(pattern):
        return
    compiled = re.compile(pattern)
    for line in nasty_lines(seed):
        began_s = time.thread_time()
        compiled.match(line)
        assert time.thread_time() - began_s < MANY_TIMES_LINEAR_S, (pattern, line[:20])


def test_what_is_refused_would_have_been_slow() -> None:
    began_s = time.thread_time()
    re.match(r"^.*a.*b", "a" * 10_000)
    slow_s = time.thread_time() - began_s
    began_s = time.thread_time()
    re.match(r"^[^a]*a[^b]*b", "a" * 10_000)
    assert slow_s > 20 * (time.thread_time() - began_s)


@pytest.mark.parametrize("name", ["nginx", "apache2", "apache_error"])
def test_our_own_patterns_pass_the_same_judge(name: str) -> None:
    parse = parse_options(name, {}).parse
    assert parse is not None
    check_pattern(parse["pattern"])
