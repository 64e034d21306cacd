"""Why a path is collected, or why not: the steps from the configuration and the file itself to the answer.

Serves `hostagent explain`, without a running agent. It looks at the path's metadata and opens nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Protocol

from hostagent.config.checks import exclude_of, include_of
from hostagent.config.model import Config
from hostagent.observe.report import ExplainReport


class Selects(Protocol):
    """A source's compiled patterns."""

    def matches(self, path: str) -> bool:
        """Whether the path is included and not excluded."""


Compile = Callable[[Iterable[str], Iterable[str]], Selects]


def explain(path: str, config: Config, compile_selection: Compile) -> ExplainReport:
    """Go through the sources as the agent would."""
    steps = about_file(path)
    readable = not steps or not steps[-1].startswith("not collected")
    chosen = ""
    for name, source in config.sources.items():
        include, exclude = include_of(source), exclude_of(source)
        if not include:
            steps.append(f"source {name} ({source.type}): finds its files by itself, not by a pattern for this path")
            continue
        matching = [pattern for pattern in include if compile_selection([pattern], ()).matches(path)]
        if not matching:
            steps.append(f"source {name}: no include pattern matches ({_listed(include)})")
            continue
        ruled_out = [one for one in exclude if not compile_selection(matching, [one]).matches(path)]
        if ruled_out:
            steps.append(f"source {name}: {matching[0]!r} matches, but exclude {ruled_out[0]!r} rules it out")
        elif chosen:
            steps.append(f"source {name}: {matching[0]!r} matches as well, but {chosen} has it already")
        else:
            chosen = name
            to = ", ".join(source.outputs)
            steps.append(f"source {name}: {matching[0]!r} matches; its lines go to {to}")
    collected = bool(chosen) and readable
    return ExplainReport(path=path, collected=collected, source=chosen, steps=tuple(steps))


def _listed(patterns: tuple[str, ...]) -> str:
    shown = ", ".join(repr(pattern) for pattern in patterns[:5])
    return shown + (f" and {len(patterns) - 5} more" if len(patterns) > 5 else "")


def about_file(path: str) -> list[str]:
    """What the file system says; a last step that begins with `not collected` settles it.

    Asked by the command and not by the agent: looking at a path on a dead network mount may never come back.
    """
    steps: list[str] = []
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            steps.append(f"the path is a symbolic link to {os.readlink(path)}")
            status = os.stat(path)
    except FileNotFoundError:
        return [*steps, "there is no such file now"]
    except OSError as error:
        return [*steps, f"not collected: the path can't be looked at: {error.strerror}"]
    if not stat.S_ISREG(status.st_mode):
        return [*steps, f"not collected: it is {_kind(status.st_mode)}, and only regular files are read"]
    steps.append(f"it is a regular file of {status.st_size} bytes, inode {status.st_ino}")
    if not os.access(path, os.R_OK, effective_ids=True):
        steps.append(f"user {os.geteuid()} may not read it; the agent's own user must be able to")
    return steps


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
