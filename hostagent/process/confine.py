r"""Rewrites a regular expression so that it never leaves the line it began in.

Used for patterns that are to run once over a whole chunk instead of once per line. Within one line there is no line
break, so `[^"]` may as well be `[^"\n]`, and `\A` is `^`: the rewritten pattern, compiled with MULTILINE, finds in the
chunk exactly what the original finds in each line. The pattern is read with the parser of the `re` module, whose
tree is only looked at; where a construct has no such equivalent, there is no rewritten pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

Node = tuple[Any, Any]

_LINE_FEED = 0x0A
_SPACES = r"\t\v\f\r "
_CLASSES = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: _SPACES,  # \s without the line feed
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
_WITHOUT_LINE_FEED = {sre.CATEGORY_NOT_DIGIT: r"[^\d\n]", sre.CATEGORY_NOT_WORD: r"[^\w\n]"}
_POSITIONS = {
    sre.AT_BEGINNING: "^",
    sre.AT_BEGINNING_STRING: "^",
    sre.AT_END: "$",
    sre.AT_END_STRING: "$",
    sre.AT_BOUNDARY: r"\b",
}
_REPEATS = {sre.MAX_REPEAT: "", sre.MIN_REPEAT: "?", sre.POSSESSIVE_REPEAT: "+"}
_ASSERTIONS = {
    (sre.ASSERT, 1): "?=",
    (sre.ASSERT, -1): "?<=",
    (sre.ASSERT_NOT, 1): "?!",
    (sre.ASSERT_NOT, -1): "?<!",
}
_SCOPED = {re.IGNORECASE: "i", re.ASCII: "a"}


class Confined(NamedTuple):
    """A pattern that matches once in each line in which the original is found, and keeps the numbers of its groups."""

    source: str
    flags: int


class _NoEquivalentError(Exception):
    """Something in the pattern means one thing in a line and another in a chunk."""


def confine(source: str) -> Confined | None:
    """The pattern for whole chunks; None where some construct in it has no equivalent there."""
    tree = _parser.parse(source, re.ASCII)
    names = {number: name for name, number in tree.state.groupdict.items()}
    try:
        rewritten = _sequence(tree, names)
    except _NoEquivalentError:
        return None
    anchored = len(tree) and tree[0] in ((sre.AT, sre.AT_BEGINNING), (sre.AT, sre.AT_BEGINNING_STRING))
    head = "^" if anchored else "^.*?"
    # After an empty match the engine tries again at the same place, so none may be left behind in a line.
    tail = "" if tree.getwidth()[0] else ".*"
    flags = re.ASCII | re.MULTILINE | (tree.state.flags & re.IGNORECASE)
    return Confined(f"{head}(?:{rewritten}){tail}", flags)


def _sequence(nodes: Iterable[Node], names: dict[int, str]) -> str:
    return "".join([_node(op, argument, names) for op, argument in nodes])


def _node(op: Any, argument: Any, names: dict[int, str]) -> str:  # noqa: ANN401, PLR0911 - sre's own untyped tree
    if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
        return _character(op, argument)
    if op in _REPEATS:
        least, most, repeated = argument
        bounds = f"{{{least},{'' if most is sre.MAXREPEAT else most}}}"
        return f"(?:{_sequence(repeated, names)}){bounds}{_REPEATS[op]}"
    if op is sre.SUBPATTERN:
        return _group(argument, names)
    if op is sre.BRANCH:
        return f"(?:{'|'.join(_sequence(branch, names) for branch in argument[1])})"
    if op is sre.ATOMIC_GROUP:
        return f"(?>{_sequence(argument, names)})"
    if op is sre.ASSERT or op is sre.ASSERT_NOT:
        return f"({_ASSERTIONS[op, argument[0]]}{_sequence(argument[1], names)})"
    if op is sre.GROUPREF:
        return rf"(?:\{argument})"
    if op is sre.GROUPREF_EXISTS:
        number, present, absent = argument
        return f"(?({number}){_sequence(present, names)}|{_sequence(absent or (), names)})"
    if op is sre.AT and argument in _POSITIONS:
        return _POSITIONS[argument]
    raise _NoEquivalentError


def _group(argument: Any, names: dict[int, str]) -> str:  # noqa: ANN401 - sre's own untyped tree
    number, added, removed, inside = argument
    if removed or added & ~(re.IGNORECASE | re.ASCII | re.DOTALL | re.MULTILINE):
        raise _NoEquivalentError
    body = _sequence(inside, names)
    if number is None:
        scoped = "".join(letter for flag, letter in _SCOPED.items() if added & flag)
        return f"(?{scoped}:{body})"
    return f"(?P<{names[number]}>{body})" if number in names else f"({body})"


def _character(op: Any, argument: Any) -> str:  # noqa: ANN401 - sre's own untyped tree
    if op is sre.ANY:
        return "."
    if op is sre.NOT_LITERAL:
        return rf"[^{_member(argument)}\n]"
    if op is sre.LITERAL:
        if argument == _LINE_FEED:
            raise _NoEquivalentError
        return re.escape(chr(argument))
    if argument[0][0] is sre.NEGATE:
        return "[^" + "".join(_set_item(*item) for item in argument[1:]) + r"\n]"
    return _set(argument)


def _set(items: list[Node]) -> str:
    """A set that lists what it matches, without the line feed."""
    if len(items) == 1 and items[0][0] is sre.CATEGORY and items[0][1] in _WITHOUT_LINE_FEED:
        return _WITHOUT_LINE_FEED[items[0][1]]
    listed = ""
    for op, argument in items:
        if op is sre.CATEGORY and argument in _WITHOUT_LINE_FEED:
            raise _NoEquivalentError
        if op is sre.RANGE and argument[0] <= _LINE_FEED <= argument[1]:
            if argument[0] < _LINE_FEED:
                listed += _set_item(sre.RANGE, (argument[0], _LINE_FEED - 1))
            if argument[1] > _LINE_FEED:
                listed += _set_item(sre.RANGE, (_LINE_FEED + 1, argument[1]))
        elif (op, argument) != (sre.LITERAL, _LINE_FEED):
            listed += _set_item(op, argument)
    if not listed:
        raise _NoEquivalentError
    return f"[{listed}]"


def _set_item(op: Any, argument: Any) -> str:  # noqa: ANN401 - sre's own untyped tree
    if op is sre.LITERAL:
        return _member(argument)
    if op is sre.RANGE:
        return f"{_member(argument[0])}-{_member(argument[1])}"
    if op is sre.CATEGORY:
        return _CLASSES[argument]
    raise _NoEquivalentError


def _member(code: int) -> str:
    """A character of a set, written so that nothing in it can be taken for syntax."""
    character = chr(code)
    return character if code >= 0x80 or character.isalnum() else rf"\x{code:02x}"
