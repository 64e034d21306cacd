r"""A user's regular expression, compiled for characters and for bytes.

Used by multiline, the regex parser and the processors. A pattern has one meaning everywhere: it is searched for in
one record, a `.` is a character, and `\w`, `\d`, `\s` are ASCII. On plain ASCII that is what it means for bytes, too:
only records with other characters are decoded for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Compiled(NamedTuple):
    """Both forms of one pattern; without `octets` where it can only be written with characters."""

    chars: re.Pattern[str]
    octets: re.Pattern[bytes] | None


def compile_pattern(source: str, flags: int = re.ASCII) -> Compiled:
    """Compile both forms; ValueError says what is wrong with the pattern."""
    try:
        chars = re.compile(source, flags)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source!r} is no regular expression: {error}") from None
    try:
        # Escapes such as \u00e9 and \N{DASH} exist for characters only.
        octets = re.compile(source.encode("ascii"), flags)
    except (re.error, ValueError):
        octets = None
    return Compiled(chars, octets)


def search(pattern: Compiled, value: bytes) -> re.Match[bytes] | re.Match[str] | None:
    """The first match in one record."""
    if pattern.octets is not None and value.isascii():
        return pattern.octets.search(value)
    return pattern.chars.search(value.decode("utf-8", "surrogateescape"))


def replace(pattern: Compiled, value: bytes, by: bytes) -> bytes:
    """The value with every match replaced by exactly these bytes."""
    by = by.replace(b"\\", b"\\\\")  # a template, whose one special character is the backslash
    if pattern.octets is not None and value.isascii():
        return pattern.octets.sub(by, value)
    return pattern.chars.sub(by.decode(), value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
