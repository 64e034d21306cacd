"""What a configuration's values and types are called in messages: what was found, what was expected, what was meant.

Stands between the nodes and the checks. It decides nothing about what is valid; the YAML 1.2 core types of plain text
are the one meaning it knows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any

from msgspec import inspect

from hostagent.config.nodes import ListNode, MapNode, Node
from hostagent.config.units import DURATION_WORDS, SIZE_WORDS

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.\d*|\.\d+|\d[\d_]*)([eE][-+]?\d+)?")
_UNIT_WORDS = {"duration": DURATION_WORDS, "size": SIZE_WORDS}


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def unknown(word: str, known: Collection[str]) -> str:
    """The hint for a word that is not known: the one probably meant, or all there are."""
    meant = nearest(word, known)
    listed = ", ".join(sorted(known)) or "none"
    return f"did you mean `{meant}`? Known: {listed}" if meant else f"known: {listed}"


def describe(node: Node) -> str:
    """What was found, in words; text is cut short, for it may be anything."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a mapping"
    if node.plain and node.text in ("", "~", "null"):
        return "nothing"
    shown = node.shown if len(node.shown) <= 60 else node.shown[:57] + "..."
    kind = type(plain_value(node))
    word = {bool: "the truth value", int: "the number", float: "the number"}.get(kind, "the text")
    return f"{word} {shown!r}" if word == "the text" else f"{word} {shown}"


def plain_value(node: Node) -> Any:  # noqa: ANN401 - any JSON value
    """The value a node has where no option says what it must be: YAML 1.2's core types."""
    if isinstance(node, ListNode):
        return [plain_value(item) for item in node.items]
    if isinstance(node, MapNode):
        return {key: plain_value(item) for key, (_, item) in node.items.items()}
    if not node.plain:
        return node.text
    if node.text in ("", "~", "null"):
        return None
    if node.text in ("true", "false"):
        return node.text == "true"
    if _INT.fullmatch(node.text) and len(node.text) < 20:
        return int(node.text)
    if _FLOAT.fullmatch(node.text) and len(node.text) < 40:
        return float(node.text)
    return node.text


def expected(kind: inspect.Type, unit: str = "") -> str:
    """What an option takes, in words."""
    if isinstance(kind, inspect.Metadata):
        return "a regular expression" if is_pattern(kind) else expected(kind.type, unit)
    if isinstance(kind, inspect.UnionType):
        words = dict.fromkeys(expected(one, unit) for one in kind.types if not isinstance(one, inspect.NoneType))
        return " or ".join(words)
    if unit in _UNIT_WORDS:
        return _UNIT_WORDS[unit]
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(str(value) for value in kind.values)
    if isinstance(kind, inspect.EnumType):
        return "one of " + ", ".join(str(member.value) for member in kind.cls)
    if isinstance(kind, (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)):
        return f"a list, each item {expected(kind.item_type)}"
    words_by_type = {
        inspect.StrType: "a string",
        inspect.BoolType: "true or false",
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.NoneType: "nothing",
        inspect.DictType: "a mapping",
        inspect.StructType: "a mapping",
        inspect.CustomType: "a path",  # the only one there is
    }
    return words_by_type.get(type(kind), "a value")


def alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The types an option may have, unions and annotations taken apart."""
    if isinstance(kind, inspect.Metadata):
        return alternatives(kind.type)
    if isinstance(kind, inspect.UnionType):
        return tuple(one for each in kind.types for one in alternatives(each))
    return (kind,)


def is_pattern(kind: inspect.Type) -> bool:
    """Whether the option is a regular expression."""
    return isinstance(kind, inspect.Metadata) and (kind.extra_json_schema or {}).get("format") == "regex"
