"""Turns the format names of Log-Pilot and Logtail into the parse options of our own configuration.

A declaration says `json`, `nginx` or `regexp` with options beside it; what comes out is what a source's `parse` could
say. It knows nothing of containers. A format it can't serve is a problem, never an error: the log is collected raw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hostagent.discovery.declarations.patterns import PatternError, anchored, check_pattern

# Field names follow nginx's variables and stay clear of the record's own `host`, `path` and `time`.
_ACCESS = (
    r"^(?P<remote_addr>[^ ]*) [^ ]* (?P<remote_user>[^ ]*) \[(?P<time_local>[^\]]*)\] "
    r'"(?P<method>[^ "]*)(?: (?P<uri>[^" ]*)(?: (?P<protocol>[^"]*))?)?" (?P<status>[^ ]*) (?P<body_bytes_sent>[^ ]*)'
    r'(?: "(?P<http_referer>[^"]*)" "(?P<http_user_agent>[^"]*)"'
)
_NGINX = _ACCESS + r'(?: "?(?P<http_x_forwarded_for>[^"]*)"?)?)?$'
_APACHE2 = _ACCESS + r")?$"
_APACHE_ERROR = (
    r"^\[(?P<time_local>[^\]]*)\] \[(?P<level>[^\]]*)\](?: \[pid (?P<pid>[^\]]*)\])?"
    r"(?: \[client (?P<client>[^\]]*)\])? (?P<error>[^\n]*)$"
)

FORMATS = ("none", "json", "csv", "regexp", "nginx", "apache2", "apache_error")
FORMAT_OPTIONS = ("pattern", "time_key", "time_format", "keys")
MOST_KEYS = 256


class Parsed(NamedTuple):
    """What became of a declared format: parse options (None: raw), and what of it could not be had."""

    parse: Mapping[str, Any] | None
    problems: tuple[tuple[str, str], ...] = ()  # message, hint


def parse_options(name: str, options: Mapping[str, str], *, any_pattern: bool = False) -> Parsed:
    """Parse options for a format and its `_format_<option>` values.

    `any_pattern` takes regular expressions as they are; otherwise only those that no line can make slow.
    """
    problems = [
        (f"format option {option[:64]!r} is not known", "known: " + ", ".join(FORMAT_OPTIONS))
        for option in options
        if option not in FORMAT_OPTIONS
    ]
    if "time_format" in options:
        problems.append(("format option `time_format` is ignored: a time is passed on as it was written", ""))
    if "time_key" in options and name.strip().lower() != "json":
        problems.append(
            ("format option `time_key` is ignored: only `json` has it", "call a group of the pattern `time`")
        )
    parse: Mapping[str, Any] | None = None
    match name.strip().lower():
        case "" | "none":
            pass
        case "json":
            parse = {"type": "json"}
            if options.get("time_key"):
                parse = {**parse, "time_key": options["time_key"]}
        case "nginx":
            parse = {"type": "regex", "pattern": _NGINX}
        case "apache2":
            parse = {"type": "regex", "pattern": _APACHE2}
        case "apache_error":
            parse = {"type": "regex", "pattern": _APACHE_ERROR}
        case "regexp" | "regex":
            parse, problem = _regexp(options.get("pattern", ""), any_pattern=any_pattern)
            problems += problem
        case "csv":
            parse, problem = _csv(options.get("keys", ""))
            problems += problem
        case unknown:
            problems.append((f"format {unknown[:64]!r} is not known: collected raw", "known: " + ", ".join(FORMATS)))
    return Parsed(parse, tuple(problems))


def judge_pattern(text: str, *, any_pattern: bool) -> str:
    """A workload's pattern, ready for use; PatternError if it may not be used."""
    pattern = anchored(text)
    if not any_pattern:
        check_pattern(pattern)
    return pattern


def _regexp(text: str, *, any_pattern: bool) -> tuple[Mapping[str, Any] | None, list[tuple[str, str]]]:
    if not text.strip():
        return None, [("format `regexp` has no pattern: collected raw", "add …_format_pattern")]
    try:
        return {"type": "regex", "pattern": judge_pattern(text, any_pattern=any_pattern)}, []
    except PatternError as error:
        return None, [(f"the pattern {error}: collected raw", error.hint)]


def _csv(text: str) -> tuple[Mapping[str, Any] | None, list[tuple[str, str]]]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if not keys:
        return None, [("format `csv` names no columns: collected raw", "add …_format_keys with the columns' names")]
    if len(keys) > MOST_KEYS:
        return None, [(f"format `csv` has {len(keys)} columns, the most is {MOST_KEYS}: collected raw", "")]
    return {"type": "delimiter", "separator": ",", "keys": keys}, []
