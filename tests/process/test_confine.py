"""A confined pattern finds in a chunk what the original finds in each of its lines."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.process.confine import confine

PATTERNS = [
    r"^\d{4}-\d{2}-\d{2} ",
    r"^(?P<ip>\S+) (?P<rest>.*)$",
    r'^"(?P<quoted>[^"]*)"(?P<after>[\s\S]*)',
    r"(?P<first>\w+)\s+(?P<second>\W+)",
    r"\A\D+\Z",
    r"^\s*$",
    r"^(?!at )(?=[^b])(?P<x>.)",
    r"(?<![a-z])b|^a+?",
    r"(?i)^ERROR|warn",
    r"(?s)^(?P<all>.*)$",
    r"(?P<x>[ab]+)\s*",
    r"(?P<none>)",
    r"^(?P<a>a)?(?P<b>(?(a)b|c)) ?(?P=b)",
    r"(?>a|ab)c|x++",
    r"[\x00-\x1f]",
    r"[^a\n\t-\r]+",
    r"^(?:(?P<a>[^\"]*+)$|(?P<b>.*))",
    r"^(?:(?>(?P<a>[^\"]*))$|(?P<b>.*))",
    r"^(?P<a>\w*)(?P<b>[^a-z]?)",
    r"^(?P<a>[a-z]*)(?=[^b])(?P<b>.*)",
    r"^(?P<word>\w+)\s+?$|^(?P<no>\W*)",
    r"^(?P<x>[^c]+?)(?P<y>\s*)(?P<z>[^A-Z]*)$",
    r"(?x) ^ a  # a comment",
    r"^(a|b\s)*(?P<end>c)",
    r"(?P<no>[^b]*)b(?P<digits>(?:\d)+)-(?P<rest>\S+) ",
    r"(?i)(?P<no>[^E]+)e(?P<more>[^a]*)(?i:A)",
    r"(?P<least>[^a]{2,})a(?P<words>[^ ]+)( |$)",
    r"^(?P<word>\S+)b|(?P<digits>\d+)1|(?P<no>[^b]+)c",
    r"(?P<dash>[-\]^]){2,3}",
    r"é+[à-ü]",
    r"(?i:É|b)$",
    r"",
    r"$",
    r"^",
    r"\b",
]
line = st.lists(
    st.sampled_from([*'ab "c-]^', "\t", "at ", "error", "2024-05-01 ", "é", "\r", "\x0b", "xx"]), max_size=8
).map("".join)


def groups(found: re.Match[str]) -> tuple[str | None, ...]:
    return tuple(found.groupdict().values())


def found_in_each(pattern: str, lines: list[str]) -> list[tuple[str | None, ...]]:
    compiled = re.compile(pattern, re.ASCII)
    return [groups(found) for one in lines if (found := compiled.search(one))]


def found_in_chunk(pattern: str, flags: int, lines: list[str]) -> list[tuple[str | None, ...]]:
    return [groups(found) for found in re.compile(pattern, flags).finditer("\n".join(lines))]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(st.lists(line, min_size=1, max_size=5))
def test_one_pass_over_a_chunk_finds_what_each_line_holds(pattern: str, lines: list[str]) -> None:
    confined = confine(pattern)
    assert confined is not None
    expected = found_in_each(pattern, lines)
    assert found_in_chunk(confined.each_line, confined.flags, lines) == expected
    quickly = found_in_chunk(confined.quick, confined.flags, lines)
    assert len(quickly) != len(lines) or quickly == expected
    if not set("".join(lines)) & set("\t\v\f\r"):
        quickly = found_in_chunk(confined.blank_only, confined.flags, lines)
        assert len(quickly) != len(lines) or quickly == expected


@pytest.mark.parametrize("pattern", [r"a\nb", r"\B", r"(?-i:a)", r"[\n]", r"[\Da]", r"(?u:\w)"])
def test_what_has_no_equivalent_is_not_rewritten(pattern: str) -> None:
    assert confine(pattern) is None
