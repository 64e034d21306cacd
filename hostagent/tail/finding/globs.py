"""What a target's patterns mean: which paths they match, and which steps lead there.

Patterns may come from a tenant's declaration, so matching is linear in the path whatever they say: every step is
matched by itself, and `**` only ever stands for whole steps. Nothing here touches the file system.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

_LONGEST_PATTERN = 4096
_MOST_STARS_IN_A_STEP = 16
_MOST_ANY_DEPTHS = 8
_WILD = re.compile(r"[*?\[]")

Matches = Callable[[str], object]


class AnyDepth(NamedTuple):
    """The step `**`: any number of directories, none included."""


class Literal(NamedTuple):
    """A step that matches one name."""

    name: str


class Wild(NamedTuple):
    """A step with `*`, `?` or `[...]`; all of them match a leading dot, too."""

    matches: Matches


Step = AnyDepth | Literal | Wild


class Glob(NamedTuple):
    """An absolute pattern, step by step."""

    pattern: str
    steps: tuple[Step, ...]

    def matches(self, path: str) -> bool:
        """Whether the whole path, absolute and without empty steps, is what the pattern describes."""
        names = path.split("/")[1:]
        at = step = 0
        resume_step = resume_at = -1
        while at < len(names):
            if step < len(self.steps) and isinstance(self.steps[step], AnyDepth):
                step += 1
                resume_step, resume_at = step, at
            elif step < len(self.steps) and step_matches(self.steps[step], names[at]):
                step += 1
                at += 1
            elif resume_step >= 0:
                resume_at += 1
                step, at = resume_step, resume_at
            else:
                return False
        return step == len(self.steps)

    def leads_through(self, path: str) -> bool:
        """Whether matches can lie below this path, were it a directory or a link to one.

        `**` leads through directories of any name, but through no link: only what comes before it is asked here.
        """
        names = path.split("/")[1:]
        return len(names) < len(self.steps) and all(
            not isinstance(step, AnyDepth) and step_matches(step, name)
            for step, name in zip(self.steps, names, strict=False)
        )


def step_matcher(step: Step) -> Matches:
    """One step of a pattern as a function, for those who ask it many names."""
    return step.matches if isinstance(step, Wild) else partial(step_matches, step)


def step_matches(step: Step, name: str) -> bool:
    """Whether one step of a path is what one step of a pattern describes."""
    if isinstance(step, Literal):
        return step.name == name
    return isinstance(step, AnyDepth) or bool(step.matches(name))


def compile_glob(pattern: str) -> Glob:
    """Take an absolute pattern apart; ValueError says what is wrong with it.

    `*` and `?` stay within a step, `**` as a whole step is any number of directories, `[a-z]` and `[!a-z]` are sets.
    A bracket that is not closed stands for itself.
    """
    if not pattern.startswith("/"):
        raise ValueError(f"{pattern!r} is not an absolute path")
    if "\0" in pattern:
        raise ValueError(f"{pattern!r} has a NUL in it")
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"a pattern of {len(pattern)} characters is longer than any path can be")
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ValueError(f"{pattern!r} has '..' in it; write the path without")
    if not names or pattern.endswith("/"):
        raise ValueError(f"{pattern!r} names a directory; end it with a file name or *")
    steps: list[Step] = []
    for name in names:
        step = _step(name)
        if not (steps and isinstance(step, AnyDepth) and isinstance(steps[-1], AnyDepth)):
            steps.append(step)
    if isinstance(steps[-1], AnyDepth):
        steps.append(_step("*"))
    if sum(isinstance(step, AnyDepth) for step in steps) > _MOST_ANY_DEPTHS:
        raise ValueError(f"{pattern!r} has more than {_MOST_ANY_DEPTHS} steps '**'")
    return Glob(pattern, tuple(steps))


def _step(name: str) -> Step:
    if name == "**":
        return AnyDepth()
    if not _WILD.search(name):
        return Literal(name)
    return Wild(_name_matcher([name]))


def _name_matcher(patterns: Sequence[str]) -> Matches:
    for pattern in patterns:
        # Time to match a name is its length times the number of stars: bounded, because patterns may be a tenant's.
        if pattern.count("*") > _MOST_STARS_IN_A_STEP or len(pattern) > _LONGEST_PATTERN:
            raise ValueError(f"{pattern[:80]!r} has more than {_MOST_STARS_IN_A_STEP} stars or is too long")
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)).match


class Selection(NamedTuple):
    """A target's include and exclude patterns, ready to be asked."""

    globs: tuple[Glob, ...]
    excluded: tuple[Glob, ...]
    excluded_names: Matches | None
    pruned: tuple[Glob, ...] = ()

    def matches(self, path: str) -> bool:
        """Whether this path, beneath the target's root, is to be read."""
        return any(glob.matches(path) for glob in self.globs) and not self.excludes(path)

    def leads_through(self, path: str) -> bool:
        """Whether a link that appears at this path can lead to matches, so that the target must be scanned again."""
        return any(glob.leads_through(path) for glob in self.globs)

    def excludes(self, path: str) -> bool:
        """Whether an exclude pattern rules the path out, by its base name or as a whole."""
        if self.excluded_names is not None and self.excluded_names(path[path.rfind("/") + 1 :]):
            return True
        return any(glob.matches(path) for glob in self.excluded)

    def prunes(self, directory: str) -> bool:
        """Whether everything below a directory is excluded, so that nobody need look."""
        return any(glob.matches(directory) for glob in self.pruned)


def compile_selection(include: Iterable[str], exclude: Iterable[str] = ()) -> Selection:
    """Prepare patterns; an exclude pattern without a slash is for base names (`*.gz`). ValueError as compile_glob."""
    excluded = tuple(exclude)
    whole = [pattern for pattern in excluded if "/" in pattern]
    names = [pattern for pattern in excluded if "/" not in pattern]
    whole_below = [pattern for pattern in whole if pattern.endswith("/**") and pattern.strip("/*")]
    return Selection(
        globs=tuple(compile_glob(pattern) for pattern in include),
        excluded=tuple(compile_glob(pattern) for pattern in whole),
        excluded_names=_name_matcher(names) if names else None,
        pruned=tuple(compile_glob(pattern[:-3]) for pattern in whole_below),
    )
