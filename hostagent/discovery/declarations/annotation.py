"""Reads a pod's annotation `hostagent.io/logs`: a small YAML list, each entry one log in our configuration's own words.

It is a tenant's text, so it is taken apart under limits of size and depth and without YAML's aliases, whose expansion
has none. An entry that can't be read is a problem of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from hostagent.discovery.declarations.dialects import Problem, shown

ANNOTATION = "hostagent.io/logs"
LONGEST_ANNOTATION = 64 * 1024
MOST_ENTRIES = 64
_DEEPEST = 8
_WHERE = f"annotation {ANNOTATION}"

# Every scalar stays text: what a value means is decided by the option it is given to.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One log. `container` narrows it to one of the pod's containers; `path: stdout` is the same as `stdout: true`."""

    name: str
    path: str | list[str] = []
    stdout: bool = False
    container: str = ""
    format: str = ""
    parse: str | dict[str, Any] = ""
    multiline: str | dict[str, Any] = ""
    tags: dict[str, str] = {}
    target: str | None = None
    outputs: str | list[str] = []

    @property
    def where(self) -> str:
        """The entry, for messages."""
        return f"{_WHERE}: {shown(self.name)}"


# Looked at here once: msgspec does that when a type is first used, and crashes when two threads do it at once.
msgspec.json.Decoder(Entry)


def entries_of(text: str) -> tuple[list[Entry], list[Problem]]:
    """The entries that can be read, and what is wrong with the others."""
    try:
        items = _load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        return [], [Problem(_WHERE, shown(f"{place}{reason}", 200), "write a YAML list of {name, path or stdout}")]
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, item in enumerate(items[:MOST_ENTRIES], start=1):
        try:
            entries.append(msgspec.convert(item, Entry, strict=False))
        except msgspec.ValidationError as error:
            problems.append(Problem(f"{_WHERE}: entry {number}", shown(str(error), 200), "the other entries are used"))
    if len(items) > MOST_ENTRIES:
        problems.append(Problem(_WHERE, f"has {len(items)} entries; only the first {MOST_ENTRIES} are used"))
    return entries, problems


def _load(text: str) -> list[Any]:
    if len(text) > LONGEST_ANNOTATION:
        raise ValueError(f"has {len(text)} characters; the most is {LONGEST_ANNOTATION}")
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("anchors and aliases (`&`, `*`) are not taken: put such a value in quotes")
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if depth > _DEEPEST:
            raise ValueError(f"is nested deeper than {_DEEPEST} levels")
    items = yaml.load(text, Loader=_Loader)  # noqa: S506 - BaseLoader makes nothing but text, lists and mappings
    if not isinstance(items, list):
        raise ValueError("is not a list")  # noqa: TRY004 - the tenant's mistake, handled with the others
    return items
