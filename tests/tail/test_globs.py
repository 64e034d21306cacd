"""Which paths a pattern means."""

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.tail.finding.globs import compile_glob, compile_selection


@pytest.mark.parametrize(
    "pattern, path, matches",
    [
        ("/var/log/syslog", "/var/log/syslog", True),
        ("/var/log/syslog", "/var/log/syslog.1", False),
        ("/var/log/*.log", "/var/log/a.log", True),
        ("/var/log/*.log", "/var/log/.hidden.log", True),
        ("/var/log/*.log", "/var/log/deep/a.log", False),
        ("/var/log/?.log", "/var/log/a.log", True),
        ("/var/log/?.log", "/var/log/ab.log", False),
        ("/var/log/[a-c]*.log", "/var/log/bee.log", True),
        ("/var/log/[!a-c]*.log", "/var/log/bee.log", False),
        ("/var/log/[a*.log", "/var/log/[a1.log", True),
        ("/var/log/**/*.log", "/var/log/a.log", True),
        ("/var/log/**/*.log", "/var/log/x/y/z/a.log", True),
        ("/var/log/**/*.log", "/var/other/a.log", False),
        ("/var/log/**", "/var/log/x/y", True),
        ("/**/app/**/*.log", "/srv/app/1/app/2/x.log", True),
        ("/**/app/**/*.log", "/srv/other/x.log", False),
        ("/var/log/a**b", "/var/log/axxb", True),
        ("/var/log/a**b", "/var/log/ax/xb", False),
        ("//var//log/./a.log", "/var/log/a.log", True),
        ("/logs/*", "/logs/two\nlines", True),
        ("/logs/*", "/logs/\udcff\udcfe", True),
        ("/logs/(a|b)+$", "/logs/(a|b)+$", True),
        ("/logs/*.log", "/logs/a.log\n", False),
    ],
)
def test_what_a_pattern_matches(pattern: str, path: str, matches: bool) -> None:
    assert compile_glob(pattern).matches(path) is matches


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("var/log/*.log", "not an absolute path"),
        ("", "not an absolute path"),
        ("/var/../etc/shadow", "'..'"),
        ("/var/log/\0", "NUL"),
        ("/var/log/", "a directory"),
        ("/", "a directory"),
        ("/" + "a" * 5000, "longer than any path"),
        ("/" + "*a" * 100, "stars"),
        ("/" + "**/a/" * 20 + "b", "steps"),
    ],
)
def test_what_a_pattern_may_not_say(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        compile_glob(pattern)


names = st.text(st.sampled_from("ab.*?[]!-"), min_size=1, max_size=8).filter(lambda name: name not in (".", "..", "**"))


@given(pattern=names, name=st.text(st.sampled_from("ab.-!]"), min_size=1, max_size=8))
def test_a_single_step_agrees_with_fnmatch(pattern: str, name: str) -> None:
    assert compile_glob(f"/{pattern}").matches(f"/{name}") is fnmatch.fnmatchcase(name, pattern)


steps = st.lists(st.sampled_from(["a", "b", "*", "a*", "**"]), min_size=1, max_size=6)


@given(pattern=steps, path=st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=7))
def test_any_depth_agrees_with_trying_every_depth(pattern: list[str], path: list[str]) -> None:
    def slow(pattern: list[str], path: list[str]) -> bool:
        if not pattern:
            return not path
        if pattern[0] == "**":
            return any(slow(pattern[1:], path[at:]) for at in range(len(path) + 1))
        return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and slow(pattern[1:], path[1:])

    meant = [*pattern, "*"] if pattern[-1] == "**" else pattern
    assert compile_glob("/" + "/".join(pattern)).matches("/" + "/".join(path)) is slow(meant, path)


def test_the_worst_pattern_is_matched_in_no_time() -> None:
    glob = compile_glob("/" + "**/*a*a*a*a*a*a*a*a*b/" * 8 + "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b")
    path = "/" + "/".join(["a" * 255] * 15)
    begun_s = time.process_time()
    assert not glob.matches(path)
    # Exponential matching would not end at all; the bound is a thousand times what it takes.
    assert time.process_time() - begun_s < 30


def test_excluding_by_base_name_or_by_path() -> None:
    selection = compile_selection(["/var/log/**/*"], ["*.gz", "*~", "/var/log/private/**", "/var/log/?/debug.log"])
    taken = ["/var/log/a.log", "/var/log/x/a.log", "/var/log/private", "/var/log/xy/debug.log"]
    refused = ["/var/log/a.gz", "/var/log/x/a.log~", "/var/log/private/a.log", "/var/log/x/debug.log", "/etc/passwd"]
    assert [path for path in taken + refused if selection.matches(path)] == taken
    assert selection.prunes("/var/log/private")
    assert selection.prunes("/var/log/private/deeper") is False  # nobody gets there


@pytest.mark.parametrize(
    "path, leads",
    [
        ("/srv", True),
        ("/srv/current", True),
        ("/srv/current/log", True),
        ("/srv/current/other", False),
        ("/srv/current/log/a.log", False),
        ("/etc", False),
        ("/var", True),
        ("/var/x", False),  # reached by ** only, which follows no link
    ],
)
def test_which_links_can_lead_to_matches(path: str, leads: bool) -> None:
    assert compile_selection(["/srv/*/log/*.log", "/var/**/*.log"]).leads_through(path) is leads
