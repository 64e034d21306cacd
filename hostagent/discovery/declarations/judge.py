"""From what a container says about its logs to declarations the agent can act on, and a list of what is wrong.

Environment, labels and annotations are written by whoever starts the container: names, paths, patterns and tags are
data here, held to limits, and one bad entry never spoils another. Whether a declared path may be read is not decided
here but where it is opened, beneath the container's own root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hostagent.discovery.declarations.annotation import ANNOTATION, Entry, entries_of
from hostagent.discovery.declarations.dialects import Draft, Problem, drafts_of, shown
from hostagent.discovery.declarations.formats import judge_pattern, parse_options
from hostagent.discovery.declarations.paths import CONTROL, plain_path
from hostagent.discovery.declarations.patterns import PatternError
from hostagent.discovery.runtime.container import Container
from hostagent.model import Scalar

LONGEST_VALUE = 16 * 1024
LONGEST_TAG = 1024
MOST_DECLARATIONS = 64
MOST_PATHS = 64
MOST_TAGS = 32
MOST_PROBLEMS = 64
# Parsers that are safe with any options, once a `pattern` among them has been judged.
PARSERS = ("json", "regex", "delimiter")
MULTILINE_OPTIONS = ("start", "continue", "end", "negate", "flush_after")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")

# Names that say who wrote a record. Only the runtime and the agent may, also where they happen to say nothing.
RESERVED_TAGS = frozenset({"host", "image", "log", "message", "partial", "path", "source", "stream", "target", "time"})
RESERVED_PREFIXES = ("k8s_", "container_", "docker_")


class Rules(NamedTuple):
    """What the operator allows declarations to say."""

    prefixes: Sequence[str] = ("aliyun", "loong")
    outputs: Sequence[str] = ()
    any_pattern: bool = False


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One log of a container. `format` is a framing for files; `target` is where the tenant wants it to end up."""

    name: str
    where: str
    stdout: bool = False
    paths: tuple[str, ...] = ()
    format: str | None = None
    parse: Mapping[str, Any] | None = None
    multiline: Mapping[str, Any] | None = None
    tags: Mapping[str, Scalar] = {}
    target: str = ""
    outputs: tuple[str, ...] | None = None


class Declared(NamedTuple):
    """What a container declares, and what could not be understood of it."""

    declarations: tuple[Declaration, ...]
    problems: tuple[Problem, ...]


def declarations_of(container: Container, rules: Rules) -> Declared:
    """Everything the container declares. The pod's annotation counts before a variable, a variable before a label."""
    drafts, problems = drafts_of(container.env, container.labels, rules.prefixes)
    entries: list[Entry] = []
    annotations = container.pod.annotations if container.pod else container.annotations
    if text := annotations.get(ANNOTATION):
        entries, found = entries_of(text)
        problems += found
    declarations: dict[str, Declaration] = {}
    mine: list[Entry | Draft] = [entry for entry in entries if entry.container in ("", container.name)]
    for one in mine + list[Entry | Draft](drafts):
        judge = _Judge(one.where, rules)
        made = judge.entry(one) if isinstance(one, Entry) else judge.draft(one)
        if made is not None and made.name in declarations:
            judge.note(f"{declarations[made.name].where} names the same log, so this is ignored")
        elif made is not None and len(declarations) >= MOST_DECLARATIONS:
            judge.note(f"is ignored: a container may declare {MOST_DECLARATIONS} logs")
        elif made is not None:
            declarations[made.name] = made
        problems += judge.problems
        if len(problems) > MOST_PROBLEMS:
            problems = [*problems[:MOST_PROBLEMS], Problem("declarations", "have further problems, not listed")]
            break
    return Declared(tuple(declarations.values()), tuple(problems))


class _Judge:
    """Makes one declaration and collects what is wrong with it."""

    def __init__(self, where: str, rules: Rules) -> None:
        self._where = where
        self._rules = rules
        self.problems: list[Problem] = []

    def note(self, message: str, hint: str = "") -> None:
        """Report something about this declaration."""
        self.problems.append(Problem(self._where, message, hint))

    def draft(self, draft: Draft) -> Declaration | None:
        """A declaration from the environment or labels."""
        if not self._named(draft.name):
            return None
        texts = (draft.value, draft.format, draft.tags, *draft.format_options.values())
        if any(len(text) > LONGEST_VALUE for text in texts):
            self.note(f"is ignored: a value is longer than {LONGEST_VALUE} characters")
            return None
        stdout, paths = self._places(draft.value.split(","))
        if not stdout and not paths:
            return None
        parsed = parse_options(draft.format, draft.format_options, any_pattern=self._rules.any_pattern)
        for message, hint in parsed.problems:
            self.note(message, hint)
        return Declaration(
            name=draft.name,
            where=draft.where,
            stdout=stdout,
            paths=paths,
            parse=parsed.parse,
            tags=self._tags(self._pairs(draft.tags)),
            target=self._target(draft.target, draft.name),
        )

    def entry(self, entry: Entry) -> Declaration | None:
        """A declaration from the annotation."""
        if not self._named(entry.name):
            return None
        pieces = [entry.path] if isinstance(entry.path, str) else entry.path
        stdout, paths = self._places(pieces, or_stdout=entry.stdout)
        if not stdout and not paths:
            return None
        framing = entry.format or None
        if framing and (stdout or not _NAME.fullmatch(framing)):
            self.note("`format` is ignored: it is for files, and what a runtime writes has the runtime's own")
            framing = None
        return Declaration(
            name=entry.name,
            where=entry.where,
            stdout=stdout,
            paths=paths,
            format=framing,
            parse=self._parse(entry.parse),
            multiline=self._multiline(entry.multiline),
            tags=self._tags(entry.tags.items()),
            target=self._target(entry.target, entry.name),
            outputs=self._outputs([entry.outputs] if isinstance(entry.outputs, str) else entry.outputs),
        )

    def _named(self, name: str) -> bool:
        if _NAME.fullmatch(name):
            return True
        self.note(f"is ignored: {shown(name)!r} is no name for a log", "letters, digits, `_`, `.` and `-`, at most 100")
        return False

    def _places(self, pieces: Iterable[str], *, or_stdout: bool = False) -> tuple[bool, tuple[str, ...]]:
        stdout = or_stdout
        paths: dict[str, None] = {}
        for piece in pieces:
            text = piece.strip()
            if text == "stdout":
                stdout = True
            elif text and len(paths) >= MOST_PATHS:
                self.note(f"has more than {MOST_PATHS} paths: the rest is ignored")
                break
            elif text:
                try:
                    paths[plain_path(text)] = None
                except ValueError as error:
                    self.note(f"the path {shown(text)!r} {error}")
        if not stdout and not paths and not self.problems:
            self.note("is empty", "say `stdout`, or the absolute path of a log in the container")
        return stdout, tuple(paths)

    def _pairs(self, text: str) -> Iterable[tuple[str, str]]:
        for piece in filter(None, (piece.strip() for piece in text.split(","))):
            name, found, value = piece.partition("=")
            if found:
                yield name.strip(), value.strip()
            else:
                self.note(f"the tag {shown(piece)!r} is ignored", "write name=value, separated by commas")

    def _tags(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Scalar]:
        tags: dict[str, Scalar] = {}
        for name, value in pairs:
            if not _TAG.fullmatch(name):
                self.note(f"the tag {shown(name)!r} is ignored: no name for a tag", "letters, digits, `_`, `.` and `-`")
            elif name in RESERVED_TAGS or name.startswith(RESERVED_PREFIXES):
                self.note(f"the tag {shown(name)!r} is ignored: only the runtime and the agent may say that")
            elif len(value) > LONGEST_TAG or CONTROL.search(value):
                self.note(f"the tag {name!r} is ignored: its value is too long or has control characters")
            elif len(tags) >= MOST_TAGS:
                self.note(f"has more than {MOST_TAGS} tags: the rest is ignored")
                break
            else:
                tags[name] = value
        return tags

    def _target(self, target: str | None, name: str) -> str:
        if target is None:
            return name
        if len(target) > 255 or CONTROL.search(target):
            self.note("`target` is ignored: it is too long or has control characters")
            return name
        return target.strip()

    def _parse(self, parse: str | Mapping[str, Any]) -> Mapping[str, Any] | None:
        options = {"type": parse} if isinstance(parse, str) else dict(parse)
        name = options.get("type")
        if not parse:
            return None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.note("`parse` is ignored: it names no parser", "parse: json, or parse: {type: regex, pattern: …}")
            return None
        if name not in PARSERS:
            self.note(f"`parse` is ignored: a declaration may not use {name!r}", "known: " + ", ".join(PARSERS))
            return None
        if "pattern" not in options:
            return options
        pattern = self._pattern(options["pattern"], "parse.pattern")
        return None if pattern is None else {**options, "pattern": pattern}

    def _multiline(self, multiline: str | Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Options as in the configuration; a text alone is the pattern of a record's first line."""
        if not multiline:
            return None
        options = {"start": multiline} if isinstance(multiline, str) else dict(multiline)
        if refused := [key for key in options if key not in MULTILINE_OPTIONS]:
            # How much of a record is held in memory is not the tenant's to say.
            self.note(
                f"multiline.{shown(refused[0])} is ignored: a declaration may not say that",
                "known: " + ", ".join(MULTILINE_OPTIONS),
            )
            options = {key: value for key, value in options.items() if key in MULTILINE_OPTIONS}
        for key in ("start", "continue", "end"):
            if key in options:
                pattern = self._pattern(options[key], f"multiline.{key}")
                if pattern is None:
                    return None
                options[key] = pattern
        return options or None

    def _pattern(self, text: object, what: str) -> str | None:
        try:
            if not isinstance(text, str):
                raise PatternError("is no text")
            return judge_pattern(text, any_pattern=self._rules.any_pattern)
        except PatternError as error:
            self.note(f"{what} {error}; it is ignored", error.hint)
            return None

    def _outputs(self, outputs: Sequence[str]) -> tuple[str, ...] | None:
        allowed = tuple(name for name in outputs if name in self._rules.outputs)
        if refused := [shown(name) for name in outputs[:5] if name not in self._rules.outputs]:
            self.note(
                f"may not choose the outputs {', '.join(refused)}",
                "the operator lists what declarations may choose in the source's `declared_outputs`",
            )
        return allowed or None
