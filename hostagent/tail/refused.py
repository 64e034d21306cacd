"""Paths that can't be read as logs, with the reason, for as long as that is so.

The registry notes here what it can't open or read; `status` shows it once per path. Owns how much of it is kept:
whoever may create files can create a million that are no logs.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from hostagent.hookspecs import Notice
from hostagent.tail.finding.beneath import OpenError

MOST_PATHS = 1000
RETRIED = "it is tried again with every scan"


class Refused:
    """The paths, each with its notice. The reader's thread alone."""

    def __init__(self) -> None:
        self._notices: dict[str, Notice] = {}
        self._more = False

    def __contains__(self, path: str) -> bool:
        return path in self._notices

    def add(self, path: str, message: str, hint: str) -> None:
        """A path can't be read now."""
        if len(self._notices) < MOST_PATHS or path in self._notices:
            self._notices[path] = Notice(path, message, hint)
        else:
            self._more = True

    def add_error(self, path: str, error: OSError) -> None:
        """What the kernel, or `open_beneath`, has against a path."""
        if isinstance(error, OpenError):
            self.add(path, str(error), error.hint)
        else:
            self.add(path, f"can't be read: {error.strerror or error}", RETRIED)

    def discard(self, path: str) -> None:
        """The path can be read, or nothing is there any more."""
        if self._notices:
            self._notices.pop(path, None)

    def keep(self, seen: Container[str], concerned: Callable[[str], bool]) -> None:
        """After a scan: of the paths it concerned, only those it has seen are still there."""
        for path in list(self._notices):
            if path not in seen and concerned(path):
                del self._notices[path]
        self._more = self._more and len(self._notices) >= MOST_PATHS

    def notices(self) -> list[Notice]:
        """All of them; past the bound one that says so."""
        notices = list(self._notices.values())
        if self._more:
            notices.append(Notice("files", "more paths can't be read than are listed here", "narrow the includes"))
        return notices
