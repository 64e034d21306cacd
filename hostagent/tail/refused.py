"""What can't be read as a log, with the reason, for as long as that is so: paths, and files that the chain trips over.

The registry notes here what it can't open or read, turns what could not be processed; `status` shows it once per path.
Owns how much of it is kept: whoever may create files can create a million that are no logs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container

from hostagent.hookspecs import Notice
from hostagent.tail.finding.beneath import OpenError
from hostagent.tail.tailer import TailedFile

log = logging.getLogger(__name__)

MOST_PATHS = 1000
RETRIED = "it is tried again with every scan"


class Refused:
    """The paths and files, each with its notice. The reader's thread alone."""

    def __init__(self) -> None:
        self._notices: dict[str, Notice] = {}
        self._suspended: dict[TailedFile, Notice] = {}
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
            self.add(path, error.strerror or "can't be read", error.hint)
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

    def suspend(self, tailed: TailedFile, error: Exception) -> None:
        """Stop reading a file whose bytes made the chain fail in a way nobody foresaw."""
        tailed.suspended = True
        log.error("%s: unexpected error while processing; the file is no longer read", tailed.path, exc_info=error)
        message = f"is no longer read: {type(error).__name__} while processing the bytes from {tailed.tail} on: {error}"
        hint = "nothing is lost, its position stays; this is a fault of the agent or a plugin, please report it"
        self._suspended[tailed] = Notice(tailed.path, message, hint)

    def forget(self, tailed: TailedFile) -> None:
        """The file is over."""
        self._suspended.pop(tailed, None)

    def notices(self) -> list[Notice]:
        """All of them; past the bound one that says so."""
        notices = list(self._notices.values())
        if self._more:
            notices.append(Notice("files", "more paths can't be read than are listed here", "narrow the includes"))
        return [*notices, *(known for tailed, known in self._suspended.items() if tailed.suspended)]
