"""Sizes and durations as people write them: `2GiB`, `500ms`, `1h30m`.

Reads them for the configuration and writes them for messages. A unit that could mean two things (`512k`) is refused:
a factor of 1.024 in a disk limit is not for the agent to guess.
"""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

SIZE_WORDS = "a size such as 512KiB, 10MB or a number of bytes"
DURATION_WORDS = "a duration such as 500ms, 5s, 10m, 1h30m or a number of seconds"


def parse_size(text: str) -> int:
    """Bytes; ValueError says what is wrong."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {SIZE_WORDS}")
    factor = _SIZE_UNITS.get(match[2].upper())
    if factor is None:
        letter = match[2][:1].upper()
        meant = f": write {letter}iB (1024-fold) or {letter}B (1000-fold)" if letter in "KMGT" else ""
        raise ValueError(f"`{match[2]}` is no unit of size{meant}")
    size = float(match[1]) * factor if "." in match[1] else int(match[1]) * factor
    if size != int(size):
        raise ValueError("expected a whole number of bytes")
    if size > 2**62:
        raise ValueError("the size is larger than any file can be")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds; ValueError says what is wrong."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        end = 0
        seconds = 0.0
        for match in _DURATION.finditer(text):
            if match.start() != end:
                break
            seconds += float(match[1]) * _DURATION_UNITS_S[match[2]]
            end = match.end()
        if not text or end != len(text):
            raise ValueError(f"expected {DURATION_WORDS}")
    if seconds > 10 * 365 * 86400:
        raise ValueError("the duration is longer than ten years")
    return seconds


def format_size(size_bytes: float) -> str:
    """A size for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def format_duration(seconds: float) -> str:
    """A duration for people: its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
