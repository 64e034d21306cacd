"""Finds the paths a target's patterns match, and the directories where new ones can appear.

One walk answers both, so that every directory can be watched before it is listed and nothing falls in between. It
never leaves the target's root, opens no file, and looks at a bounded number of entries however large the tree.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from errno import ENAMETOOLONG, ENOENT, ENOTDIR
from typing import NamedTuple

from hostagent.hookspecs import Notice
from hostagent.tail.finding.beneath import (
    NotThereError,
    OpenError,
    as_open_error,
    join,
    open_beneath,
    open_directory,
    path_of,
    pseudo_filesystem,
)
from hostagent.tail.finding.globs import (
    AnyDepth,
    Literal,
    Selection,
    Step,
    compile_glob,
    compile_selection,
    step_matcher,
    step_matches,
)

__all__ = [
    "Found",
    "Limits",
    "Selection",
    "behind_link",
    "compile_glob",
    "compile_selection",
    "directories",
    "join",
    "open_beneath",
    "path_of",
    "scan",
]


class Found(NamedTuple):
    """A path that matches, beneath the root: a file, a link to something, or something else that is no directory.

    `size` is -1 where the scan was not asked for sizes, and for a link: only opening it shows what it leads to.
    """

    path: str
    inode: int
    is_symlink: bool
    size: int = -1


class Limits(NamedTuple):
    """Where a walk stops: entries looked at in all, directories to watch, and directories below each other.

    A tenant's tree deserves less of all of them than the host's: watches are shared by everybody.
    """

    entries: int = 1_000_000
    depth: int = 64
    directories: int = 50_000


Told = Callable[[str], object]

_State = tuple[int, int]  # which pattern, and which of its steps applies to the names in a directory
_LIMITS = Limits()
_MOST_NOTICES = 20


class _Visit(NamedTuple):
    directory: str
    states: set[_State]
    may_be_link: bool


def scan(
    root: str,
    selection: Selection,
    *,
    follow: bool | None = None,
    sizes: bool = False,
    limits: Limits = _LIMITS,
    on_directory: Told | None = None,
    notices: list[Notice] | None = None,
) -> Iterator[Found]:
    """Every matching path there is now, each once.

    `on_directory` is told each directory where a match can appear, before the directory is listed: the nearest
    existing one where a pattern's next step isn't there yet. Symbolic links are yielded only when followed (`follow`
    as for open_beneath); links to directories are walked inside the root where a pattern names or matches that step,
    never below `**`. What cannot be looked at goes into `notices`.
    """
    walk = _Walk(root, selection, root == "/" if follow is None else follow, limits, on_directory)
    walk.sizes = sizes
    try:
        yield from walk.run()
    finally:
        if notices is not None:
            notices += walk.notices


def directories(root: str, selection: Selection, *, limits: Limits = _LIMITS) -> list[str]:
    """The existing directories to watch for a selection, beneath the root."""
    told: list[str] = []
    for _ in scan(root, selection, limits=limits, on_directory=told.append):
        pass
    return told


class _Walk:
    """One walk: a stack of directories still to visit, each with the pattern steps that apply to what is in it."""

    def __init__(self, root: str, selection: Selection, follow: bool, limits: Limits, told: Told | None) -> None:
        self.root = root
        self.selection = selection
        self.follow = follow
        self.limits = limits
        self.told = told
        self.sizes = False
        self.notices: list[Notice] = []
        self.entries = 0
        self.directories = 0
        self.stack: list[_Visit] = [_Visit("/", {(number, 0) for number in range(len(selection.globs))}, True)]

    def run(self) -> Iterator[Found]:
        while self.stack:
            visit = self.stack.pop()
            if visit.directory.count("/") > self.limits.depth:
                self._note(visit.directory, "is too deep: nothing below it is collected", "narrow the include pattern")
                continue
            try:
                yield from self._look_into(visit)
            except NotThereError:
                continue
            except OSError as error:
                refused = error if isinstance(error, OpenError) else as_open_error(visit.directory, error)
                self._note(visit.directory, str(refused), refused.hint)
            if self.entries >= self.limits.entries or self.directories >= self.limits.directories:
                self._note(
                    visit.directory,
                    f"the search stopped here after {self.entries} names in {self.directories} directories: "
                    "the rest is not collected",
                    "narrow the include pattern, or split the source",
                )
                return

    def _look_into(self, visit: _Visit) -> Iterator[Found]:
        states = self._with_any_depth_skipped(visit.states)
        names = self._literal_names(states)
        if names is not None:
            yield from self._look_up(visit, states, names)
            return
        fd = open_directory(self.root, visit.directory, follow=visit.may_be_link)
        try:
            if pseudo_filesystem(fd):  # /proc and /sys hold no logs, and no end of directories
                return
            self._tell(visit.directory)
            yield from self._list(fd, visit.directory, states)
        finally:
            os.close(fd)

    def _look_up(self, visit: _Visit, states: set[_State], names: set[str]) -> Iterator[Found]:
        """Every pattern says the next step by name: no listing, and no permission to list, is needed."""
        fd = open_directory(self.root, visit.directory, follow=visit.may_be_link, readable=False)
        try:
            # Told before the final look, if a match can appear here, or the directory that leads to it: because it
            # isn't there, or because it is a link, which can be made to point elsewhere.
            if any(self._is_last(state) for state in states) or not all(_is_directory(fd, name) for name in names):
                self._tell(visit.directory)
            for name in names:
                self.entries += 1
                status = _look(fd, name)
                if status is None:
                    continue
                path = _child(visit.directory, name)
                is_link = stat.S_ISLNK(status.st_mode)
                if is_link or stat.S_ISDIR(status.st_mode):
                    self._descend(path, name, states, is_link=is_link)
                    if not (is_link and self.follow):
                        continue
                if self._selected(path, name, states):
                    yield Found(path, status.st_ino, is_link, -1 if is_link else status.st_size)
        finally:
            os.close(fd)

    def _list(self, fd: int, directory: str, states: set[_State]) -> Iterator[Found]:
        onward = {state for state in states if not self._is_last(state)}
        matchers = [step_matcher(self._step(state)) for state in states - onward]
        budget = self.limits.entries - self.entries
        seen = 0
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    seen += 1
                    if seen >= budget:
                        return
                    is_link = entry.is_symlink()
                    if is_link or entry.is_dir(follow_symlinks=False):
                        if onward:
                            self._descend(_child(directory, entry.name), entry.name, onward, is_link=is_link)
                        if not (is_link and self.follow):
                            continue
                    for matches in matchers:
                        if matches(entry.name):
                            if found := self._found(entry, directory, is_link=is_link):
                                yield found
                            break
        finally:
            self.entries += seen

    def _found(self, entry: os.DirEntry[str], directory: str, *, is_link: bool) -> Found | None:
        path = _child(directory, entry.name)
        if self.selection.excludes(path):
            return None
        if not self.sizes or is_link:
            return Found(path, entry.inode(), is_link)
        try:
            return Found(path, entry.inode(), is_link, entry.stat(follow_symlinks=False).st_size)
        except FileNotFoundError:
            return None

    def _selected(self, path: str, name: str, states: set[_State]) -> bool:
        last = any(self._is_last(state) and step_matches(self._step(state), name) for state in states)
        return last and not self.selection.excludes(path)

    def _descend(self, path: str, name: str, states: set[_State], *, is_link: bool) -> None:
        """Put a directory on the stack if a pattern leads through it; `**` leads through real directories only."""
        below = set()
        for state in states:
            step = self._step(state)
            if isinstance(step, AnyDepth):
                if not is_link:
                    below.add(state)
            elif not self._is_last(state) and step_matches(step, name):
                below.add((state[0], state[1] + 1))
        if below and not self.selection.prunes(path):
            self.stack.append(_Visit(path, below, is_link))

    def _with_any_depth_skipped(self, states: set[_State]) -> set[_State]:
        """`**` may stand for no directory at all: the step behind it applies here, too."""
        return states | {(glob, step + 1) for glob, step in states if isinstance(self._step((glob, step)), AnyDepth)}

    def _literal_names(self, states: set[_State]) -> set[str] | None:
        names = set()
        for state in states:
            step = self._step(state)
            if not isinstance(step, Literal):
                return None
            names.add(step.name)
        return names

    def _step(self, state: _State) -> Step:
        return self.selection.globs[state[0]].steps[state[1]]

    def _is_last(self, state: _State) -> bool:
        return state[1] + 1 == len(self.selection.globs[state[0]].steps)

    def _tell(self, directory: str) -> None:
        self.directories += 1
        if self.told is not None:
            self.told(directory)

    def _note(self, directory: str, message: str, hint: str = "") -> None:
        if len(self.notices) < _MOST_NOTICES:
            self.notices.append(Notice(join(self.root, directory), message, hint))


def _child(directory: str, name: str) -> str:
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def _is_directory(fd: int, name: str) -> bool:
    status = _look(fd, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _look(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG):
            return None
        raise


def behind_link(path: str) -> tuple[int, int]:
    """Inode and size of the file a link leads to, no inode if to none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size
