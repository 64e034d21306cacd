"""Which paths may be declared: absolute, plain, and with so few wildcards that looking for them can't take for ever.

Operators' own paths inside containers are held to the same. Whether a path may be read is not decided here but where it
is opened, beneath the container's root.
"""

from __future__ import annotations

import re

LONGEST_PATH = 4095
MOST_WILD_STEPS = 4
# Control characters, line ends of all kinds, and what is left of bytes that are no UTF-8.
CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")
_WILD = re.compile(r"[*?\[]")
_NOT_FOR_LOGS = ("proc", "sys")


def plain_path(text: str) -> str:
    """An absolute path or pattern without empty and `.` steps; ValueError says why a container's log can't be there."""
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        raise ValueError(f"is longer than {LONGEST_PATH} bytes")
    if not text.startswith("/"):
        raise ValueError("is not absolute: begin with /, or say stdout")
    if CONTROL.search(text):
        raise ValueError("has control characters")
    steps = [step for step in text.split("/") if step not in ("", ".")]
    if ".." in steps:
        raise ValueError("has `..` in it: write the path without")
    if not steps or text.endswith("/"):
        raise ValueError("names a directory: end it with a file name or a pattern like *.log")
    if steps[0] in _NOT_FOR_LOGS:
        raise ValueError("is no place for logs")
    wild = [step for step in steps if _WILD.search(step)]
    if len(steps) > 1 and _WILD.search(steps[0]):
        raise ValueError("begins with a pattern: name the first directory, or the whole container would be searched")
    if len(wild) > MOST_WILD_STEPS or wild.count("**") > 1 or any("**" in step and step != "**" for step in wild):
        raise ValueError(f"has too many patterns: at most {MOST_WILD_STEPS} steps, one of them `**`")
    return "/" + "/".join(steps)
