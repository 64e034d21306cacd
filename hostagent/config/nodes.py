"""YAML text to a tree of nodes that know their line and column: the first step of reading a configuration.

Built from the parser's events and not by a constructor, so no text can make Python objects, and depth, size and what
aliases expand to are bounded. Scalars stay text here: what they mean depends on the option they stand for.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import yaml

from hostagent.errors import ConfigProblem

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 40
MAX_PROBLEMS = 200
MAX_NODES = 200_000  # after aliases are expanded

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


class Place(NamedTuple):
    """A character of a configuration file; line 0 stands for the whole file."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


class ScalarNode(NamedTuple):
    """One value as text. `plain` is False where quotes say it is a string; `shown` is the text as it was written."""

    place: Place
    text: str
    plain: bool
    shown: str
    size: int = 1


class ListNode(NamedTuple):
    """Values in order."""

    place: Place
    items: list[Node]
    size: int


class MapNode(NamedTuple):
    """Keys, each with its own place, and their values; every key once."""

    place: Place
    items: dict[str, tuple[Place, Node]]
    size: int


Node = ScalarNode | ListNode | MapNode


class Problems:
    """Everything found wrong so far, up to a number past which nobody reads on."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], ConfigProblem] = {}

    @property
    def found(self) -> list[ConfigProblem]:
        """The mistakes in the order of their places."""
        return sorted(self._found.values(), key=lambda one: (one.path, one.line, one.column))

    @property
    def full(self) -> bool:
        """Whether so much is wrong that looking for more is wasted."""
        return len(self._found) >= MAX_PROBLEMS

    def add(self, place: Place, message: str, hint: str = "") -> None:
        """Note one mistake; the same text at the same place (an alias used twice) is noted once."""
        if not self.full:
            self._found[place, message] = ConfigProblem(place.path, place.line, place.column, message, hint)


class _UnusableFileError(Exception):
    """The rest of this file can't be read; the problem has been noted."""


def read_nodes(path: str, environment: Mapping[str, str], problems: Problems) -> Node | None:
    """The tree of a configuration file; None when it can't be read or is empty."""
    root, whole = read_as_far_as_possible(path, environment, problems)
    return root if whole else None


def read_as_far_as_possible(path: str, environment: Mapping[str, str], problems: Problems) -> tuple[Node | None, bool]:
    """The tree of a configuration file up to where it stops being YAML, and whether that is its end."""
    text = _read_text(path, problems)
    if text is None:
        return None, False
    builder = _Builder(path, environment, problems)
    try:
        for event in yaml.parse(_joined_surrogates(text), Loader=_LOADER):
            builder.take(event)
    except _UnusableFileError:
        return builder.so_far(), False
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else Place(path)
        where = f", {error.context} that begins at line {error.context_mark.line + 1}" if error.context_mark else ""
        hint = _syntax_hint(text, place, error.problem or "")
        problems.add(place, f"not valid YAML: {error.problem or error.context}{where}", hint)
        return builder.so_far(), False
    except yaml.reader.ReaderError as error:
        at = text.find(chr(error.character))  # the parser's own position counts bytes or characters, as it is built
        place = Place(path, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)) if at >= 0 else Place(path)
        hint = "remove it; in double quotes it can be written as an escape"
        problems.add(place, f"not valid YAML: the control character U+{error.character:04X}", hint)
        return builder.so_far(), False
    except yaml.YAMLError as error:
        problems.add(Place(path), f"not valid YAML: {error}")
        return builder.so_far(), False
    return builder.root, True


def node_of(value: object, place: Place) -> Node:
    """The node for a value that did not come from a file (a container's declaration, say)."""
    if isinstance(value, Mapping):
        items = {str(key): (place, node_of(item, place)) for key, item in value.items()}
        return MapNode(place, items, 1 + sum(node.size for _, node in items.values()))
    if isinstance(value, (list, tuple)):
        nodes = [node_of(item, place) for item in value]
        return ListNode(place, nodes, 1 + sum(node.size for node in nodes))
    text = value if isinstance(value, str) else json.dumps(value)
    return ScalarNode(place, text, not isinstance(value, str), text)


def _read_text(path: str, problems: Problems) -> str | None:
    try:
        # O_NONBLOCK: a FIFO in conf.d must not hold up the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "name another with -c/--config"
        if isinstance(error, PermissionError):
            hint = f"user {os.geteuid()} may not: use sudo, or the agent's user"
        problems.add(Place(path), f"can't read the file: {error.strerror}", hint)
        return None
    if len(data) > MAX_FILE_BYTES:
        problems.add(Place(path), f"the file is larger than {MAX_FILE_BYTES // 1024 // 1024} MiB")
        return None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        problems.add(Place(path, line, column), f"not UTF-8: byte {data[error.start]:#04x}", "save the file as UTF-8")
        return None


def _joined_surrogates(text: str) -> str:
    r"""JSON writes characters past U+FFFF as two \u escapes, which YAML refuses; in real JSON they become one \U."""
    if not _SURROGATES.search(text):
        return text
    try:
        json.loads(text)
    except ValueError:
        return text

    def one(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"

    return _SURROGATES.sub(one, text)


def _syntax_hint(text: str, place: Place, problem: str) -> str:
    lines = text.split("\n")
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces, YAML allows no tabs there"
    if "mapping values" in problem:
        return "indent this line as far as those it belongs to; put a value with `: ` in it in quotes"
    if re.search(r":\s+[*&!%@`{\[]", line):
        return "quote a value that begins with one of * & ! % @ ` { ["
    if re.search(r'"[^"]*\\', line):
        return "in double quotes a backslash is an escape; put patterns in single quotes"
    if "unexpected end" in problem:
        return "a quote or bracket is never closed"
    if "did not find expected" in problem:
        return "look for a missing comma or bracket, and whether the lines are indented alike"
    return ""


class _Open:
    """A list or mapping whose end has not been read yet."""

    def __init__(self, place: Place, anchor: str | None, *, mapping: bool) -> None:
        self.place = place
        self.anchor = anchor
        self.mapping = mapping
        self.nodes: list[Node] = []


class _Builder:
    """Takes the parser's events one by one and keeps the tree so far on a stack of its own: no recursion."""

    def __init__(self, path: str, environment: Mapping[str, str], problems: Problems) -> None:
        self.root: Node | None = None
        self._path = path
        self._environment = environment
        self._problems = problems
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: Any) -> None:  # noqa: ANN401 - PyYAML's events have no types of their own
        """Put one event of the parser in its place."""
        place = Place(self._path, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._give_up(place, "a second YAML document; one file holds one", "put it into conf.d/")
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._refuse_tag(event, place)
            self._stack.append(_Open(place, event.anchor, mapping=isinstance(event, yaml.MappingStartEvent)))
            if len(self._stack) > MAX_DEPTH:
                self._give_up(place, f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            opened = self._stack.pop()
            self._place(self._mapping(opened) if opened.mapping else self._list(opened), opened.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event, place)
            self._place(self._scalar(event, place), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            anchor = str(event.anchor)
            if anchor not in self._anchors:
                self._give_up(place, f"alias `*{anchor}` has no anchor `&{anchor}` before it")
            self._place(self._anchors[anchor], None)

    def so_far(self) -> Node | None:
        """What of the outermost mapping has been read whole."""
        if self._stack and self._stack[0].mapping:
            outermost = self._stack[0]
            del outermost.nodes[len(outermost.nodes) // 2 * 2 :]
            return self._mapping(outermost)
        return self.root

    def _give_up(self, place: Place, message: str, hint: str = "") -> NoReturn:
        self._problems.add(place, message, hint)
        raise _UnusableFileError

    def _refuse_tag(self, event: Any, place: Place) -> None:  # noqa: ANN401 - as take
        if event.tag is not None:
            self._problems.add(place, f"the tag `{event.tag}` means nothing here", "remove it")

    def _place(self, node: Node, anchor: str | None) -> None:
        if node.size > MAX_NODES:
            self._give_up(node.place, f"more than {MAX_NODES} values, aliases counted where they are used")
        if anchor is not None:
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1].nodes.append(node)
        else:
            self.root = node

    def _scalar(self, event: Any, place: Place) -> ScalarNode:  # noqa: ANN401 - as take
        shown: str = event.value
        plain = not event.style
        is_key = self._stack and self._stack[-1].mapping and len(self._stack[-1].nodes) % 2 == 0
        if is_key or "${" not in shown:
            return ScalarNode(place, shown, plain, shown)
        # A value that is one variable and nothing else takes its type from the variable's text, even in JSON's quotes.
        plain = plain or _VARIABLE.fullmatch(shown) is not None
        return ScalarNode(place, _VARIABLE.sub(lambda match: self._variable(match, place), shown), plain, shown)

    def _variable(self, match: re.Match[str], place: Place) -> str:
        if match[1] is None:
            return "${"
        value = self._environment.get(match[1], "")
        if value or (match[1] in self._environment and match[2] is None):
            return value
        if match[2] is None:
            hint = f"set it, write ${{{match[1]}:-default}}, or $${{ for a literal ${{"
            self._problems.add(place, f"the environment has no variable {match[1]}", hint)
        return match[2] or ""

    def _list(self, opened: _Open) -> ListNode:
        return ListNode(opened.place, opened.nodes, 1 + sum(node.size for node in opened.nodes))

    def _mapping(self, opened: _Open) -> MapNode:
        items: dict[str, tuple[Place, Node]] = {}
        merged: list[Node] = []
        nodes = iter(opened.nodes)
        for key, value in zip(nodes, nodes, strict=True):
            if not isinstance(key, ScalarNode):
                self._problems.add(key.place, "a key must be a name, not a list or a mapping")
            elif key.text == "<<" and key.plain:
                merged += value.items if isinstance(value, ListNode) else [value]
            elif key.text in items:
                first = items[key.text][0]
                self._problems.add(key.place, f"`{key.text}` is given twice, first at {first}", "keep one of them")
            else:
                items[key.text] = (key.place, value)
        for other in merged:
            if isinstance(other, MapNode):
                items = {**other.items, **items}
            else:
                self._problems.add(other.place, "`<<` merges mappings only", "point it at an anchored mapping")
        # What was merged counts as often as it was named, or a short text could cost a great deal of copying.
        return MapNode(opened.place, items, 1 + sum(node.size for node in opened.nodes))
