r"""Rewrites a regular expression so that it never leaves the line it began in.

Used for patterns that are to run once over a whole chunk instead of once per line. Within one line there is no line
break, so `[^"]` may as well be `[^"\n]`, and `\A` is `^`: the rewritten pattern, compiled with MULTILINE, finds in the
chunk exactly what the original finds in each line. The pattern is read with the parser of the `re` module, whose
tree is only looked at; where a construct has no such equivalent, there is no rewritten pattern.
"""

from __future__ import annotations

import importlib
import re
import string
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

# What the `re` module reads its own patterns with; no part of its types.
sre: Any = importlib.import_module("re._constants")
_parser: Any = importlib.import_module("re._parser")

Node = tuple[Any, Any]

_LINE_FEED = 0x0A
_EXCEPT_LINE_FEED = r"\n"
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
_NOT_SPACE = [(sre.CATEGORY, sre.CATEGORY_NOT_SPACE)]
_DIGIT = [(sre.CATEGORY, sre.CATEGORY_DIGIT)]
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


class Confined(NamedTuple):
    r"""The rewritten pattern, for all lines in one pass. The numbers of its groups are those of the original.

    `each_line` matches once in each line in which the original is found. `quick` keeps the original's negated sets,
    which the engine is twice as fast with: if it matches as often as there are lines, it matched once in each, with the
    same groups. A match over a line break would take in the beginning of another line, which costs a match, or end
    right behind the break, which is ruled out. `blank_only` is quicker still, for text without any white space but
    blanks and line breaks: for it, `\S` is whatever is no blank. `anywhere` matches as often as the original does.
    """

    anywhere: str
    each_line: str
    quick: str
    blank_only: str
    flags: int


class _NoEquivalentError(Exception):
    """Something in the pattern means one thing in a line and another in a chunk."""


def confine(source: str) -> Confined | None:
    """The pattern for whole chunks; None where some construct in it has no equivalent there."""
    tree = _parser.parse(source, re.ASCII)
    names = {number: name for name, number in tree.state.groupdict.items()}
    try:
        strict = _Writer(names).sequence(tree, strict=True)
        loose = [_Writer(names, not_space=not_space).sequence(tree, strict=False) for not_space in (r"\S", "^ ")]
    except _NoEquivalentError:
        return None
    anchored = len(tree) and tree[0] in ((sre.AT, sre.AT_BEGINNING), (sre.AT, sre.AT_BEGINNING_STRING))
    head = "^" if anchored else "^.*?"
    # After an empty match the engine tries again at the same place, so none may be left behind in a line.
    tail = "" if tree.getwidth()[0] else ".*"
    flags = re.ASCII | re.MULTILINE | (tree.state.flags & re.IGNORECASE)
    quick, blank_only = (rf"{head}(?:{body}){tail}(?<!\n)" for body in loose)
    return Confined(strict, f"{head}(?:{strict}){tail}", quick, blank_only, flags)


class _Writer:
    """Writes a parse tree down as a pattern again; `strict` leaves the line break out of every set."""

    def __init__(self, names: dict[int, str], not_space: str = r"\S") -> None:
        self._names = names
        self._not_space = not_space

    def sequence(self, nodes: Iterable[Node], *, strict: bool, behind: Node | None = None) -> str:
        """Write nodes one after the other; `behind` is what follows the last one."""
        every = [*nodes, behind]
        return "".join([self._node(*node, strict, after) for node, after in pairwise(every) if node is not None])

    def _node(self, op: Any, argument: Any, strict: bool, behind: Node | None) -> str:  # noqa: ANN401, PLR0911 - sre's tree
        if op is sre.IN and argument == _NOT_SPACE and not strict:
            return f"[{self._not_space}]"
        if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            return _character(op, argument, strict=strict)
        if op in _REPEATS:
            return self._repeat(op, argument, strict, behind)
        if op is sre.SUBPATTERN:
            return self._group(argument, strict, behind)
        if op is sre.BRANCH:
            return f"(?:{'|'.join(self.sequence(branch, strict=strict) for branch in argument[1])})"
        if op is sre.ATOMIC_GROUP:
            return f"(?>{self.sequence(argument, strict=True)})"
        if op is sre.ASSERT or op is sre.ASSERT_NOT:
            return f"({_ASSERTIONS[op, argument[0]]}{self.sequence(argument[1], strict=True)})"
        if op is sre.GROUPREF:
            return rf"(?:\{argument})"
        if op is sre.GROUPREF_EXISTS:
            number, present, absent = argument
            yes, no = self.sequence(present, strict=strict), self.sequence(absent or (), strict=strict)
            return f"(?({number}){yes}|{no})"
        if op is sre.AT and argument in _POSITIONS:
            return _POSITIONS[argument]
        raise _NoEquivalentError

    def _repeat(self, op: Any, argument: Any, strict: bool, behind: Node | None) -> str:  # noqa: ANN401 - as above
        least, most, repeated = argument
        # What gives nothing back must not take a line break in the first place.
        body = self.sequence(repeated, strict=strict or op is sre.POSSESSIVE_REPEAT)
        how = _REPEATS[op]
        if op is sre.MAX_REPEAT and len(repeated) == 1 and _excludes(repeated[0], behind):
            how = "+"  # nothing it could give back is what must follow, and not to ask for it is quicker
        return f"(?:{body}){{{least},{'' if most is sre.MAXREPEAT else most}}}{how}"

    def _group(self, argument: Any, strict: bool, behind: Node | None) -> str:  # noqa: ANN401 - as above
        number, added, removed, inside = argument
        if removed or added & ~(re.IGNORECASE | re.ASCII | re.DOTALL | re.MULTILINE):
            raise _NoEquivalentError
        body = self.sequence(inside, strict=strict, behind=behind)
        if number is None:
            return f"(?{'i' if added & re.IGNORECASE else ''}:{body})"
        return f"(?P<{self._names[number]}>{body})" if number in self._names else f"({body})"


def _excludes(node: Node, other: Node | None) -> bool:
    """Whether a character that matches the one is never the other, which is a literal."""
    op, argument = node
    if other is None or other[0] is not sre.LITERAL:
        return False
    if op is sre.IN and argument == _NOT_SPACE:
        return chr(other[1]) in string.whitespace
    if op is sre.IN and argument == _DIGIT:
        return chr(other[1]) not in string.digits
    return bool(op is sre.NOT_LITERAL and argument == other[1])


def _character(op: Any, argument: Any, *, strict: bool) -> str:  # noqa: ANN401 - sre's own untyped tree
    if op is sre.ANY:
        return "."
    if op is sre.NOT_LITERAL:
        return f"[^{_member(argument)}{_EXCEPT_LINE_FEED if strict else ''}]"
    if op is sre.LITERAL:
        if argument == _LINE_FEED:
            raise _NoEquivalentError
        return re.escape(chr(argument))
    if argument[0][0] is sre.NEGATE:
        listed = "".join([_set_item(*item) for item in argument[1:]])
        return f"[^{listed}{_EXCEPT_LINE_FEED if strict else ''}]"
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
