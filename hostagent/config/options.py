"""Nodes to validated Structs: every option is checked against the type its Struct declares, and all mistakes are told.

Serves our own sections and every plugin's options alike. What a type can't say, a name does: `_s` is a duration,
`_bytes` a size, `_file` a file that must be readable; `Pattern` is a regular expression. It knows no section by name.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from hostagent.config.nodes import ListNode, MapNode, Node, Place, Problems, ScalarNode
from hostagent.config.units import parse_duration, parse_size
from hostagent.config.words import alternatives, describe, expected, is_pattern, nearest, plain_value, unknown


class Invalid:
    """Stands where a value had a problem, which has been noted."""


INVALID: Final = Invalid()

_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}
_SECRET_NAMES = re.compile(r"pass|secret|token|credential|_key$|^key$|bearer|auth", re.IGNORECASE)


class Option(msgspec.Struct, frozen=True):
    """One option of a Struct as a user sees it."""

    key: str
    attribute: str
    type: inspect.Type
    unit: str  # "duration" | "size" | "file" | ""
    required: bool


@cache
def options_of(struct: type[msgspec.Struct]) -> tuple[Option, ...]:
    """The options a Struct declares, under the keys used in YAML."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return tuple(_option(field) for field in info.fields)


def _option(field: inspect.Field) -> Option:
    numeric = any(isinstance(kind, (inspect.IntType, inspect.FloatType)) for kind in alternatives(field.type))
    key, unit = field.encode_name, ""
    if numeric and key.endswith("_s"):
        key, unit = key.removesuffix("_s"), "duration"
    elif numeric and key.endswith("_bytes"):
        unit = "size"
    elif key.endswith("_file"):
        unit = "file"
    return Option(key, field.name, field.type, unit, field.required)


def read_struct(
    struct: type[msgspec.Struct], node: Node, problems: Problems, *, also: Collection[str] = (), what: str = "option"
) -> Any:  # noqa: ANN401 - an instance of `struct`, or INVALID
    """Build a Struct from a mapping. `also` are keys that belong to somebody else and are passed over."""
    options = {option.key: option for option in options_of(struct)}
    if not isinstance(node, MapNode):
        hint = f"its options are {', '.join(sorted(options))}" if options else ""
        problems.add(node.place, f"expected a mapping, found {describe(node)}", hint)
        return INVALID
    values: dict[str, Any] = {}
    for key, (place, value) in node.items.items():
        if problems.full:
            return INVALID
        if key in options:
            values[options[key].attribute] = read_option(options[key], value, problems)
        elif key not in also:
            problems.add(place, f"unknown {what} `{key}`", unknown(key, {*options, *also}))
    for option in options.values():
        if option.required and option.key not in node.items:
            problems.add(node.place, f"`{option.key}` is missing: {expected(option.type, option.unit)}")
            values[option.attribute] = INVALID
    if INVALID in values.values():
        return INVALID
    try:
        return struct(**values)
    except (ValueError, TypeError) as error:
        key, colon, rest = str(error).partition(": ")
        if colon and key in node.items:
            problems.add(_place_in(node.items[key][1], rest), rest)
        else:
            problems.add(node.place, str(error))
        return INVALID


def _place_in(node: Node, message: str) -> Place:
    """Where a message about an option points: at the item of a list whose text it quotes, else at the value."""
    items = node.items if isinstance(node, ListNode) else []
    return next((one.place for one in items if isinstance(one, ScalarNode) and repr(one.text) in message), node.place)


def read_option(option: Option, node: Node, problems: Problems) -> Any:  # noqa: ANN401 - what the option's type says
    """The value of one option, or INVALID."""
    reader = _Reader(problems, option.unit, secret=_SECRET_NAMES.search(option.key) is not None)
    return reader.read(option.type, node)


class _Reader:
    """Reads one option's value, whatever its type, down to the last nested mapping."""

    def __init__(self, problems: Problems, unit: str, *, secret: bool) -> None:
        self._problems = problems
        self._unit = unit
        self._secret = secret

    def read(self, kind: inspect.Type, node: Node) -> Any:  # noqa: ANN401 - what `kind` says
        if isinstance(kind, inspect.Metadata):
            value = self.read(kind.type, node)
            return self._pattern(value, node) if is_pattern(kind) and isinstance(value, str) else value
        if isinstance(kind, inspect.UnionType):
            return self._union(kind, node)
        if isinstance(kind, inspect.StructType):
            return read_struct(kind.cls, node, self._problems)
        if isinstance(kind, inspect.DictType):
            return self._dict(kind, node)
        if isinstance(kind, (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)):
            return self._list(kind, node)
        if isinstance(kind, inspect.AnyType):
            return plain_value(node)
        return self._scalar(kind, node)

    def _wrong(self, kind: inspect.Type, node: Node, hint: str = "") -> Invalid:
        found = "something else" if self._secret and isinstance(node, ScalarNode) else describe(node)
        self._problems.add(node.place, f"expected {expected(kind, self._unit)}, found {found}", hint)
        return INVALID

    def _pattern(self, text: str, node: Node) -> str | Invalid:
        try:
            re.compile(text)
        except re.error as error:
            at = f" at character {error.pos + 1} of the pattern" if error.pos is not None else ""
            rest = f": {text[error.pos :][:20]!r}" if error.pos is not None and error.pos < len(text) else ""
            hint = "write patterns in single quotes: there a backslash is a backslash"
            self._problems.add(node.place, f"the pattern does not compile: {error.msg}{at}{rest}", hint)
            return INVALID
        except (RecursionError, OverflowError):
            self._problems.add(node.place, "the pattern is nested too deeply or repeats too often to be compiled")
            return INVALID
        return text

    def _union(self, kind: inspect.UnionType, node: Node) -> Any:  # noqa: ANN401 - as read
        nullable = any(isinstance(one, inspect.NoneType) for one in kind.types)
        if nullable and isinstance(node, ScalarNode) and plain_value(node) is None:
            return None
        rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        if len(rest) == 1:
            return self.read(rest[0], node)
        for one in rest:
            if _suits(alternatives(one)[0], node):
                return self.read(one, node)
        return self._wrong(kind, node)

    def _dict(self, kind: inspect.DictType, node: Node) -> Any:  # noqa: ANN401 - as read
        if not isinstance(node, MapNode):
            return self._wrong(kind, node)
        values = {key: self.read(kind.value_type, value) for key, (_, value) in node.items.items()}
        return INVALID if INVALID in values.values() else values

    def _list(self, kind: Any, node: Node) -> Any:  # noqa: ANN401 - four types that share `item_type` and the lengths
        if isinstance(node, ScalarNode) and plain_value(node) is None:
            return self._wrong(kind, node)
        # One value may stand for a list of one.
        items = node.items if isinstance(node, ListNode) else [node]
        values = [self.read(kind.item_type, item) for item in items]
        if INVALID in values:
            return INVALID
        if kind.min_length is not None and len(values) < kind.min_length:
            self._problems.add(node.place, f"expected at least {kind.min_length} in the list, found {len(values)}")
            return INVALID
        if isinstance(kind, inspect.VarTupleType):
            return tuple(values)
        if isinstance(kind, inspect.SetType):
            return set(values)
        return frozenset(values) if isinstance(kind, inspect.FrozenSetType) else values

    def _scalar(self, kind: inspect.Type, node: Node) -> Any:  # noqa: ANN401 - as read
        if not isinstance(node, ScalarNode):
            return self._wrong(kind, node)
        if isinstance(kind, (inspect.IntType, inspect.FloatType)):
            return self._number(kind, node)
        if isinstance(kind, inspect.StrType):
            return self._text(kind, node)
        if isinstance(kind, inspect.BoolType):
            return self._truth(kind, node)
        if isinstance(kind, inspect.LiteralType):
            return self._choice(kind, node, kind.values)
        if isinstance(kind, inspect.EnumType):
            chosen = self._choice(kind, node, [member.value for member in kind.cls])
            return chosen if chosen is INVALID else kind.cls(chosen)
        value = plain_value(node)
        if isinstance(kind, inspect.CustomType) and kind.cls is Path:
            return Path(node.text) if isinstance(value, str) and value else self._wrong(kind, node)
        return value

    def _truth(self, kind: inspect.Type, node: ScalarNode) -> bool | Invalid:
        if node.plain and node.text.lower() in _TRUE | _FALSE:
            return node.text.lower() in _TRUE
        return self._wrong(kind, node)

    def _choice(self, kind: inspect.Type, node: ScalarNode, choices: Collection[Any]) -> Any:  # noqa: ANN401 - as read
        for choice in choices:
            if str(choice) == node.text:
                return choice
        meant = nearest(node.text, [str(choice) for choice in choices])
        return self._wrong(kind, node, f"did you mean `{meant}`?" if meant else "")

    def _text(self, kind: inspect.StrType, node: ScalarNode) -> str | Invalid:
        value = plain_value(node)
        if not isinstance(value, str):
            hint = f"put it in quotes: {node.shown!r}" if value is not None and not self._secret else ""
            return self._wrong(kind, node, hint)
        if "\0" in value:
            self._problems.add(node.place, "a NUL character can't be part of this")
            return INVALID
        if kind.min_length is not None and len(value) < kind.min_length:
            self._problems.add(node.place, "expected some text, found an empty string")
            return INVALID
        if kind.pattern is not None and not re.search(kind.pattern, value):
            self._problems.add(node.place, f"expected text that matches {kind.pattern}, found {describe(node)}")
            return INVALID
        return self._readable(value, node.place) if self._unit == "file" else value

    def _readable(self, path: str, place: Place) -> str | Invalid:
        """A file with a secret or certificate must be there now, not when the first request is made."""
        if not os.path.isabs(path):
            hint = "the daemon's working directory is not yours; begin with /"
            self._problems.add(place, f"expected an absolute path, found {path!r}", hint)
            return INVALID
        try:
            # O_NONBLOCK: a FIFO given by mistake must not hold up the start.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            hint = f"make it readable for user {os.geteuid()}" if isinstance(error, PermissionError) else "create it"
            self._problems.add(place, f"can't read {path}: {error.strerror}", hint)
            return INVALID
        try:
            os.read(fd, 1)
        except OSError as error:
            self._problems.add(place, f"can't read {path}: {error.strerror}", "name a regular file")
            return INVALID
        finally:
            os.close(fd)
        return path

    def _number(self, kind: inspect.IntType | inspect.FloatType, node: ScalarNode) -> int | float | Invalid:
        value = plain_value(node)
        if self._unit:
            try:
                value = (parse_size if self._unit == "size" else parse_duration)(node.text)
            except ValueError as error:
                self._problems.add(node.place, f"{error}, found {describe(node)}")
                return INVALID
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self._wrong(kind, node)
        if isinstance(kind, inspect.IntType) and not whole:
            return self._wrong(kind, node)
        for limit, words, holds in (
            (kind.gt, "more than", operator.gt),
            (kind.ge, "at least", operator.ge),
            (kind.lt, "less than", operator.lt),
            (kind.le, "at most", operator.le),
        ):
            if limit is not None and not holds(value, limit):
                self._problems.add(node.place, f"expected {words} {limit}, found {describe(node)}")
                return INVALID
        return int(value) if isinstance(kind, inspect.IntType) else float(value)


def _suits(kind: inspect.Type, node: Node) -> bool:
    """Whether a value looks like this alternative of a union."""
    if isinstance(node, MapNode):
        return isinstance(kind, (inspect.StructType, inspect.DictType, inspect.AnyType))
    lists = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType, inspect.AnyType)
    if isinstance(node, ListNode):
        return isinstance(kind, lists)
    value = plain_value(node)
    if isinstance(kind, (inspect.LiteralType, inspect.EnumType)):
        choices = kind.values if isinstance(kind, inspect.LiteralType) else [one.value for one in kind.cls]
        return node.text in [str(choice) for choice in choices]
    suitable: dict[type, tuple[type, ...]] = {
        bool: (inspect.BoolType,),
        int: (inspect.IntType, inspect.FloatType),
        float: (inspect.FloatType,),
        str: (inspect.StrType, *lists),
    }
    return isinstance(kind, suitable.get(type(value), ()))
