"""Encodings of log files: how their lines end, and how they become UTF-8.

Used by the raw framing, and by the chain to repair UTF-8 that isn't. It must not lose or invent a line break, and bytes
that are no text never stop anything: they are replaced and counted.
"""

from __future__ import annotations

import codecs
import re
from typing import Protocol

from hostagent.process.lines import LineBreaks, Utf8Breaks, unfinished_bytes

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
WIDE = {"utf-16-le": b"\n\0", "utf-16-be": b"\0\n"}
# Every byte below 128 stands for itself; a trail byte of a multi-byte character is never a line feed. Stateful
# encodings (ISO-2022, HZ, UTF-7) can't be read from the middle of a file and are left out on purpose.
ASCII_SUPERSETS = frozenset(
    {
        "ascii",
        "gbk",
        "gb18030",
        "gb2312",
        "big5",
        "big5hkscs",
        "cp950",
        "shift_jis",
        "cp932",
        "euc_jp",
        "euc_kr",
        "cp949",
    }
    | {"koi8-r", "koi8-u", "mac-roman", "tis-620", "hp-roman8", "kz1048"}
    | {f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))}
    | {f"cp{page}" for page in (437, 720, 737, 775, 850, 852, *range(855, 859), *range(860, 864), 865, 866, 869, 874)}
    | {f"cp{page}" for page in range(1250, 1259)}
)


class Charset(LineBreaks, Protocol):
    """One encoding. `verbatim` means decoding changes nothing: the bytes are taken for UTF-8 as they are."""

    verbatim: bool

    def first_line_end(self, data: bytes, start: int, stop: int) -> int:
        """Offset behind the first line break that lies wholly in [start, stop); 0 when there is none."""

    def decode(self, data: bytes) -> bytes:
        """Whole lines as UTF-8."""

    def invalid_lines(self, data: bytes) -> int:
        """How many of these whole lines hold bytes that are no text in this encoding."""


class Utf8(Utf8Breaks):
    """UTF-8. Decoding leaves the bytes alone; the chain repairs what is invalid once it knows the records."""

    verbatim = True

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(encoding)
        self._encoding = encoding

    def first_line_end(self, data: bytes, start: int, stop: int) -> int:
        return data.find(b"\n", start, stop) + 1

    def decode(self, data: bytes) -> bytes:
        return data

    def invalid_lines(self, data: bytes) -> int:
        return sum(not is_text(line, self._encoding) for line in data.split(b"\n"))


class AsciiSuperset(Utf8):
    """An 8-bit or multi-byte encoding in which a line feed is one byte and nothing else contains that byte."""

    verbatim = False

    def decode(self, data: bytes) -> bytes:
        try:
            return data.decode(self._encoding).encode()
        except UnicodeDecodeError:
            # Line by line: a lead byte at the end of a line must not take the line feed for its trail byte.
            return "\n".join([line.decode(self._encoding, "replace") for line in data.split(b"\n")]).encode()


class Utf16:
    """UTF-16 of a fixed byte order: a line feed is two bytes, at an even offset from a line's first byte."""

    verbatim = False

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._newline = WIDE[encoding]

    def last_line_end(self, data: bytes, start: int, stop: int) -> int:
        found = data.rfind(self._newline, start, stop)
        while found >= 0 and (found - start) % 2:
            found = data.rfind(self._newline, start, found + 1)
        return found + 2 if found >= 0 else 0

    def first_line_end(self, data: bytes, start: int, stop: int) -> int:
        found = data.find(self._newline, start, stop)
        while found >= 0 and (found - start) % 2:
            found = data.find(self._newline, found + 1, stop)
        return found + 2 if found >= 0 else 0

    def whole_characters(self, data: bytes) -> int:
        return len(data) - unfinished_bytes(codecs.getincrementaldecoder(self._encoding)("replace"), data)

    def decode(self, data: bytes) -> bytes:
        text = data.decode(self._encoding, "replace")
        # Files joined from several carry a byte order mark at the start of a line, where it is no part of the text.
        return text.replace("\n\ufeff", "\n").removeprefix("\ufeff").encode()

    def invalid_lines(self, data: bytes) -> int:
        if is_text(data, self._encoding):
            return 0
        # An odd byte at the end is the one other thing that can be wrong with UTF-16.
        lines = data[: len(data) & ~1].decode(self._encoding, "surrogatepass").split("\n")
        return sum(_LONE_SURROGATE.search(line) is not None for line in lines) or 1


def charset_of(encoding: str) -> Charset:
    """The charset of that name; ValueError with what to write instead when there is none."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"no encoding is called {encoding!r}; {_known()}") from None
    if name == "utf-8":
        return Utf8()
    if name in WIDE:
        return Utf16(name)
    if name in ASCII_SUPERSETS:
        return AsciiSuperset(name)
    if name == "utf-16":
        raise ValueError("utf-16 leaves the byte order open; write utf-16-le or utf-16-be")
    raise ValueError(f"log files in {encoding!r} can't be read; {_known()}")


def _known() -> str:
    return "utf-8, utf-16-le, utf-16-be, latin-1, cp1252, gbk, gb18030, big5, shift_jis, euc-jp and their like can be"


def repaired(data: bytes) -> bytes:
    """UTF-8 with each invalid sequence replaced by U+FFFD; line breaks and other ASCII stay where they are."""
    return data.decode("utf-8", "replace").encode()


def is_text(data: bytes, encoding: str = "utf-8") -> bool:
    """Whether all of these bytes are text in that encoding."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    return data.isascii() or is_text(data)
