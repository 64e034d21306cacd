"""Judges regular expressions that a workload brings along, before the agent runs them over that workload's lines.

Python's engine backtracks: with pattern and text both chosen by a tenant, `(a+)+$` or even `.*a.*b` stops the reader
for good. Only patterns whose every choice is decided by the next character pass here, for those cost time linear in
the line. Patterns of the agent's own configuration don't come this way.
"""

from __future__ import annotations

import itertools
import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as sre  # type: ignore[import-not-found]
from collections.abc import Sequence
from typing import Any

LONGEST_PATTERN = 4096
MOST_GROUPS = 64
# How often the rest of the line may be tried again because of choices like `WARN|WARNING` or `-?`.
MOST_TRIES = 64

# ASCII characters are told apart; the others are four kinds. The end of a line counts as a character.
_OTHER_SPACE, _OTHER_DIGIT, _OTHER_WORD, _OTHER_ELSE, _END = range(128, 133)
_OTHERS = frozenset({_OTHER_SPACE, _OTHER_DIGIT, _OTHER_WORD, _OTHER_ELSE})
_ALL = frozenset(range(_END))
# A pattern is run over one line, so a line end is never among its characters.
_LINE_END = frozenset({_END})

_SPACES = frozenset({*map(ord, " \t\n\r\f\v\x1c\x1d\x1e\x1f"), _OTHER_SPACE})
_DIGITS = frozenset({*map(ord, "0123456789"), _OTHER_DIGIT})
_WORDS = frozenset({*(c for c in range(128) if chr(c).isalnum()), ord("_"), _OTHER_DIGIT, _OTHER_WORD})
_CATEGORIES = {
    op.CATEGORY_SPACE: _SPACES,
    op.CATEGORY_DIGIT: _DIGITS,
    op.CATEGORY_WORD: _WORDS,
    op.CATEGORY_NOT_SPACE: _ALL - _SPACES,
    op.CATEGORY_NOT_DIGIT: _ALL - _DIGITS,
    op.CATEGORY_NOT_WORD: _ALL - _WORDS,
}
_ENDS = (op.AT_END, op.AT_END_STRING)
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)

_Chars = frozenset[int]
_Item = tuple[Any, Any]


class PatternError(ValueError):
    """A pattern can't be taken from a workload; `hint` says how to write it so that it can."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def anchored(text: str) -> str:
    """The pattern tied to the start of the line, with Ruby's `/…/` and `(?<name>…)` (Log-Pilot's) in Python's way."""
    pattern = text.strip()
    if len(pattern) > 1 and pattern.startswith("/") and pattern.endswith("/"):
        pattern = pattern[1:-1]
    pattern = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern)
    if pattern.startswith("^"):
        return pattern
    return f"^(?:{pattern})" if "|" in pattern else f"^{pattern}"


def check_pattern(pattern: str) -> None:
    """Raise PatternError unless the pattern is valid and costs linear time on any line."""
    if len(pattern) > LONGEST_PATTERN:
        raise PatternError(f"has {len(pattern)} characters; the most is {LONGEST_PATTERN}")
    try:
        tree = sre.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"is no valid regular expression: {error}") from error
    if tree.state.flags & ~re.UNICODE:
        raise PatternError("has inline flags", "write [aA] for (?i)a")
    if tree.state.groups - 1 > MOST_GROUPS:
        raise PatternError(f"has {tree.state.groups - 1} groups; the most is {MOST_GROUPS}")
    try:
        _Judge().sequence(_flat(tree), _LINE_END, repeated=False)
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError("is nested too deep") from error


class _Judge:
    """Walks a parsed pattern from right to left and remembers how often the rest may have to be tried again."""

    def __init__(self) -> None:
        self._tries = 1
        self._wandering = False

    def sequence(self, items: Sequence[_Item], follow: _Chars, *, repeated: bool) -> tuple[_Chars, bool]:
        """Which characters the items can begin with, and whether they can be empty, when `follow` comes after them."""
        first, nullable = follow, True
        own: _Chars = frozenset()
        for number in range(len(items) - 1, -1, -1):
            at_end = follow is _LINE_END and not repeated
            rest = items[number + 1 :] if at_end else None
            if items[number][0] is op.AT and items[number][1] in _ENDS and rest != []:
                raise PatternError("has `$` before its end", "a pattern describes one line")
            begins, empty = self._item(items[number], first, rest, repeated=repeated)
            first = begins | first if empty else begins
            own = begins | own if empty else begins
            nullable = nullable and empty
        return own, nullable

    def _item(
        self, item: _Item, follow: _Chars, rest: Sequence[_Item] | None, *, repeated: bool
    ) -> tuple[_Chars, bool]:
        kind, value = item
        if kind in _REPEATS:
            return self._repeat(value, follow, rest, repeated=repeated)
        if kind is op.ATOMIC_GROUP:
            return self.sequence(_flat(value), follow, repeated=repeated)
        if kind is op.SUBPATTERN:
            raise PatternError("has inline flags", "write [aA] for (?i)a")
        if kind is op.BRANCH:
            return self._branch(value[1], follow, repeated=repeated)
        if kind is op.AT:
            return (_LINE_END, False) if value in _ENDS else (frozenset(), True)
        return _characters(item), False

    def _repeat(
        self, value: tuple[Any, Any, Any], follow: _Chars, rest: Sequence[_Item] | None, *, repeated: bool
    ) -> tuple[_Chars, bool]:
        least, most, tree = value
        body = _flat(tree)
        many = most > 1
        begins, empty = self.sequence(body, follow, repeated=repeated or many)
        if empty:
            raise PatternError("repeats something that can be empty", "let each round match a character")
        if many:
            # Each round but the last is followed by another one.
            self.sequence(body, begins | follow if least != most else begins, repeated=True)
        if least != most and begins & follow and not self._wanders_once(body, rest):
            self._again(most - least + 1 if most is not op.MAXREPEAT else None, begins & follow, repeated=repeated)
        return begins, least == 0

    def _wanders_once(self, body: Sequence[_Item], rest: Sequence[_Item] | None) -> bool:
        """Whether this is the pattern's one `.*` that may try every place, as each try is settled in a few steps."""
        if self._wandering or rest is None or len(body) != 1 or not _is_single(body[0]):
            return False
        self._wandering = _settles_quickly(rest)
        return self._wandering

    def _branch(self, alternatives: Sequence[Any], follow: _Chars, *, repeated: bool) -> tuple[_Chars, bool]:
        begins: _Chars = frozenset()
        nullable = False
        shared: _Chars = frozenset()
        for alternative in alternatives:
            first, empty = self.sequence(_flat(alternative), follow, repeated=repeated)
            shared |= begins & first
            shared |= (begins | first) & follow if empty or nullable else frozenset()
            begins |= first
            nullable = nullable or empty
        if shared and not _tell_apart(alternatives):
            self._again(len(alternatives), shared, repeated=repeated)
        return begins, nullable

    def _again(self, choices: int | None, shared: _Chars, *, repeated: bool) -> None:
        """Count a choice that the next character does not decide; harmless only if it is rare and never repeated."""
        if choices is not None and not repeated:
            self._tries *= choices
            if self._tries <= MOST_TRIES:
                return
        char = min(shared)
        shown = repr(chr(char)) if char < 128 else "a non-ASCII character" if char < _END else "the end of the line"
        raise PatternError(
            f"is ambiguous: it can go on in two ways at {shown}, so a line could take for ever to match",
            r'say what ends a field: [^"]* before a quote, [^\]]* before a bracket, \S+ before a space',
        )


def _flat(tree: Any) -> list[_Item]:  # noqa: ANN401 - the parser's own type
    """The items of a sequence with its plain groups opened up."""
    items: list[_Item] = []
    for kind, value in tree:
        if kind is op.SUBPATTERN and not value[1] and not value[2]:
            items += _flat(value[3])
        else:
            items.append((kind, value))
    return items


def _is_single(item: _Item) -> bool:
    return item[0] in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)


def _settles_quickly(rest: Sequence[_Item]) -> bool:
    """Whether the rest is characters one by one, perhaps with `.*` at the very end, which nothing can fail behind.

    A `$` behind it can: a record of several lines goes on where the `.*` stops.
    """
    items = list(rest)
    if items and items[-1][0] in _REPEATS:
        least, most, body = items[-1][1]
        if least <= 1 and most is op.MAXREPEAT and body[0][0] is op.ANY:
            items = items[:-1]
    return all(_is_single(item) or item[0] is op.AT for item in items)


def _tell_apart(alternatives: Sequence[Any]) -> bool:
    """Whether the alternatives are plain words of which none is the beginning of another: at most one can match."""
    words = []
    for alternative in alternatives:
        items = _flat(alternative)
        if any(kind is not op.LITERAL for kind, _ in items):
            return False
        words.append(tuple(value for _, value in items))
    words.sort()
    return not any(later[: len(word)] == word for word, later in itertools.pairwise(words))


def _characters(item: _Item) -> _Chars:
    kind, value = item
    if kind is op.LITERAL:
        return frozenset({value}) if value < 128 else _OTHERS
    if kind is op.NOT_LITERAL:
        return _ALL - {value} if value < 128 else _ALL
    if kind is op.ANY:
        return _ALL
    if kind is op.IN:
        return _set(value)
    words = str(kind).lower().replace("_", " ")
    raise PatternError(f"uses {words}, which a declaration may not", "no look-around and no back-references")


def _set(members: Sequence[_Item]) -> _Chars:
    found: set[int] = set()
    others = False
    negated = False
    for kind, value in members:
        if kind is op.NEGATE:
            negated = True
        elif kind is op.CATEGORY:
            found |= _CATEGORIES[value]
        else:
            least, most = (value, value) if kind is op.LITERAL else value
            found.update(range(least, min(most, 127) + 1))
            others = others or most > 127
    if negated:
        return _ALL - found
    return frozenset(found) | (_OTHERS if others else frozenset())
