"""The errors that cross a stage, and the exit codes of the command line.

A stage raises close to the fault and handles once, at its own edge. Outputs and discoveries speak in two words:
TemporaryError (try again, perhaps not before `delay_s`) and PermanentError (never try this again).
"""

from __future__ import annotations

import msgspec

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2


class HostagentError(Exception):
    """Base of every error hostagent raises on purpose; its text is meant for the operator."""


class TemporaryError(HostagentError):
    """It may work later. `delay_s` is the backend's own wish (Retry-After), None to leave it to the backoff."""

    def __init__(self, message: str, delay_s: float | None = None) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class OutputGoneError(TemporaryError):
    """It can't work any more in this process: who reads standard output has closed it. Nothing is lost by that."""


class PermanentError(HostagentError):
    """It will never work: a refused delivery becomes a dead letter with this text as its reason."""


class ConfigProblem(msgspec.Struct, frozen=True):
    """One mistake in the configuration: where it is, what is wrong, what would be right."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: message (hint)`."""
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{place}: {self.message}" + (f"\n    hint: {self.hint}" if self.hint else "")


class ConfigError(HostagentError):
    """The configuration can't be used; holds every problem found, not only the first."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class StateError(HostagentError):
    """The checkpoint database or spool can't do what was asked right now (disk full, read-only, locked)."""
