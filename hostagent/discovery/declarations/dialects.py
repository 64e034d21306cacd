"""Reads the declarations that containers carry in environment and labels: Log-Pilot's, Logtail's, plain path lists.

It finds which keys belong to which log and in which order of precedence, and leaves every value as the text it is;
what the texts mean is decided in `declarations`. A key is a tenant's text, too: nothing is assumed about it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hostagent.discovery.declarations.formats import FORMAT_OPTIONS

PATH_LIST = "LOG_COLLECT_FILES"

# An option of ours after a log's name, and the one Logtail gives the same meaning.
_OPTIONS = {"format": "format", "tags": "tags", "target": "target"}
_LOGTAIL_OPTIONS = {
    "logstore": "target",
    "project": "",
    "logstoremode": "",
    "machinegroup": "",
    "shard": "",
    "ttl": "",
}


class Problem(NamedTuple):
    """Something wrong with a declaration: which key, what is the matter, what to do. A warning keeps nothing back."""

    where: str
    message: str
    hint: str = ""
    warning: bool = False


class Draft(msgspec.Struct, kw_only=True):
    """The texts that belong to one log, before anybody judged them."""

    name: str
    where: str
    value: str
    format: str = ""
    format_options: dict[str, str] = {}
    tags: str = ""
    target: str | None = None


class _Key(NamedTuple):
    name: str
    option: str  # "" is the log itself; "format.<x>" an option of its format


class _Entry(NamedTuple):
    where: str
    value: str


def drafts_of(
    env: Mapping[str, str], labels: Mapping[str, str], prefixes: Sequence[str]
) -> tuple[list[Draft], list[Problem]]:
    """Every log the environment and the labels name; a label gives way to the variable that says the same."""
    problems: list[Problem] = []
    drafts: dict[str, Draft] = {}
    for prefix in prefixes:
        entries: dict[_Key, _Entry] = {}
        _collect(entries, labels, f"{prefix}.logs.", ".", "label")
        _collect(entries, env, f"{prefix}_logs_", "_", "env")
        for draft in _assemble(entries, problems):
            if draft.name not in drafts:
                drafts[draft.name] = draft
            else:
                known = drafts[draft.name].where
                problems.append(Problem(draft.where, f"{known} names the same log, so this is ignored"))
    if value := env.get(PATH_LIST):
        drafts.setdefault(PATH_LIST, Draft(name=PATH_LIST, where=f"env {PATH_LIST}", value=value, target=""))
    return list(drafts.values()), problems


def shown(text: str, most: int = 64) -> str:
    """A tenant's text for a message: short, and without anything that could pass for another line."""
    short = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in short)


def _collect(entries: dict[_Key, _Entry], source: Mapping[str, str], prefix: str, separator: str, word: str) -> None:
    """Sort the keys with the prefix under name and option. What was there before is replaced."""
    rests = {key[len(prefix) :]: key for key in sorted(source) if key.startswith(prefix) and len(key) > len(prefix)}
    for rest, key in rests.items():
        entries[_split(rest, separator, rests)] = _Entry(f"{word} {shown(key)}", source[key])


def _split(rest: str, separator: str, declared: Collection[str]) -> _Key:
    """A known suffix is a suffix, all else is part of the name.

    An option we don't know after `format`, and the options only Logtail has, count as suffixes where the name before
    them is declared itself.
    """
    name, found, option = rest.rpartition(f"{separator}format{separator}")
    if found and name and (option in FORMAT_OPTIONS or name in declared):
        return _Key(name, f"format.{option}")
    name, found, option = rest.rpartition(separator)
    if found and name and option in _OPTIONS:
        return _Key(name, _OPTIONS[option])
    if found and name and option in _LOGTAIL_OPTIONS and name in declared:
        return _Key(name, _LOGTAIL_OPTIONS[option] or f"logtail.{option}")
    return _Key(rest, "")


def _assemble(entries: Mapping[_Key, _Entry], problems: list[Problem]) -> list[Draft]:
    drafts = {
        key.name: Draft(name=key.name, where=entry.where, value=entry.value)
        for key, entry in entries.items()
        if not key.option
    }
    for key, entry in entries.items():
        if not key.option:
            continue
        draft = drafts.get(key.name)
        if draft is None:
            problems.append(
                Problem(
                    entry.where,
                    f"is an option of a log {shown(key.name)!r}, which is not declared",
                    "declare it, or choose a name that does not end like an option",
                )
            )
        elif key.option.startswith("logtail."):
            problems.append(Problem(entry.where, "has no meaning outside Logtail's own service", warning=True))
        elif key.option.startswith("format."):
            draft.format_options = {**draft.format_options, key.option[len("format.") :]: entry.value}
        else:
            setattr(draft, key.option, entry.value)
    problems += [
        Problem(
            draft.where,
            f"is the log {shown(draft.name)!r} here and for Logtail; Log-Pilot would refuse the container",
            "a name without `_` means the same everywhere",
            warning=True,
        )
        for draft in drafts.values()
        if "_" in draft.name and draft.where.startswith("env ")
    ]
    return list(drafts.values())
