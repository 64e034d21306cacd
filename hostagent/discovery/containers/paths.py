"""Where a path inside a container lives on the host: below a mount's source, or below the container's root.

A container's own symbolic links are followed here only to learn which mount a path ends up in. Whatever the answer is,
a place is always a directory that belongs to the container and a pattern beneath it, and `tail` opens nothing outside
that directory: a tenant who swaps a link at the right moment gains a wrong answer, not a file.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostagent.discovery.runtime.container import Container, Mount

MOST_LINKS = 40
MOST_PLACES = 64
_WILD = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"
_PROCESS_ROOT = re.compile(r"/proc/\d+/root$")
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Steps = tuple[str, ...]


class Place(NamedTuple):
    """A pattern beneath a directory of the host. `shown_root` is what the container calls that directory."""

    root: str
    path: str
    shown_root: str


class Located(NamedTuple):
    """Where a path was found, and what kept parts of it from being found."""

    places: tuple[Place, ...]
    problems: tuple[tuple[str, str], ...] = ()  # message, hint


class _Region(NamedTuple):
    """A part of the container's file tree: everything at or below `at` is `inner` beneath `root` on the host.

    An empty `root` is out of reach, for the reason in `why`.
    """

    at: Steps
    root: str
    why: str = ""
    inner: Steps = ()


class ContainerFiles:
    """One container's file tree, as it lies on the host that is seen under `host_root`."""

    def __init__(self, container: Container, host_root: str = "/", kernel: str = "") -> None:
        self._container = container
        self._host_root = host_root
        self._upper_shows_writes = upper_shows_writes(kernel or os.uname().release)
        self._process_root = self._find_process_root()
        self._view = ""
        self._regions = [self._root_region(), *(self._mount_region(mount) for mount in container.mounts)]
        # Longest destination first: the first one that covers a path is its mount.
        self._regions.sort(key=lambda region: len(region.at), reverse=True)

    def locate(self, pattern: str) -> Located:
        """The places of an absolute pattern as the container would resolve it now."""
        steps = self._without_links(_steps(pattern))
        wild = next((number for number, step in enumerate(steps) if _WILD.search(step)), len(steps) - 1)
        fixed = steps[:wild]
        places: list[Place] = []
        problems: list[tuple[str, str]] = []
        for region, rest in self._parts(steps, fixed):
            found = self._place(region, rest)
            if isinstance(found, Place):
                places.append(found)
            elif found is not None:
                problems.append(found)
        if len(places) > MOST_PLACES:
            problems.append((f"{pattern} reaches into {len(places)} mounts: the rest is not collected", "name fewer"))
        return Located(tuple(dict.fromkeys(places[:MOST_PLACES])), tuple(problems))

    def _parts(self, steps: Steps, fixed: Steps) -> Iterator[tuple[_Region, Steps]]:
        """The region that covers the pattern's fixed part, then those below it that its wildcards lead into."""
        base = self._covering(steps if len(fixed) == len(steps) - 1 and not _WILD.search(steps[-1]) else fixed)
        yield base, steps[len(base.at) :]
        if base.root and base.root == self._process_root:
            # Seen through its process, the tree has its mounts in place.
            return
        for region in self._regions:
            if len(region.at) > len(fixed) and region.at[: len(fixed)] == fixed and region is not base:
                for rest in _remainders(steps, region.at):
                    yield region, rest

    def _covering(self, steps: Steps) -> _Region:
        return next(region for region in self._regions if steps[: len(region.at)] == region.at)

    def _place(self, region: _Region, rest: Steps) -> Place | tuple[str, str] | None:
        shown = "/" + "/".join(region.at)
        if not region.root:
            return f"{shown} is out of reach: {region.why}", "it is tried again while the container runs"
        if region.root == self._process_root:
            return Place(region.root, "/" + "/".join((*region.inner, *rest)), "/")
        try:
            mode = os.stat(region.root, follow_symlinks=False).st_mode
        except OSError as error:
            if self._container.pid == 0:
                return None
            hint = f"let the agent see the host's files under {self._host_root}" if self._host_root != "/" else ""
            return f"{shown} is {region.root} on the host, which can't be read: {error.strerror}", hint
        if stat.S_ISDIR(mode) and rest:
            return Place(region.root, "/" + "/".join(rest), shown)
        if stat.S_ISREG(mode) and not rest:
            directory, name = os.path.split(region.root)
            return Place(directory, "/" + glob.escape(name), os.path.dirname(shown))
        return None if stat.S_ISREG(mode) else (f"{shown} is a directory", "end the path with a file name or *")

    # -- the regions ---------------------------------------------------------------------------------------------

    def _root_region(self) -> _Region:
        """Where to read, and in `_view` where to look at links: the upper directory has not all of them.

        The upper directory has the files a container wrote, with the same identity over all its restarts and after its
        end. The merged one is new with every start; where the agent doesn't see that mount it is an empty directory.
        """
        roots = [root for root in map(self._on_host, self._container.roots) if root and os.path.isdir(root)]
        merged = next(filter(os.path.ismount, roots), self._process_root)
        upper = roots[-1] if roots and not os.path.ismount(roots[-1]) else ""
        self._view = merged or upper
        chosen = upper if upper and (self._upper_shows_writes or not merged) else merged
        return _Region((), chosen, "the runtime doesn't say where its root is")

    def _mount_region(self, mount: Mount) -> _Region:
        at = _steps(mount.destination)
        if mount.source.startswith("/"):
            return _Region(at, self._on_host(mount.source), "its source is not there")
        return _Region(at, self._process_root, f"a {mount.kind} is there only while the container runs", at)

    def _on_host(self, path: str) -> str:
        """A path of the host without symbolic links, where the agent sees it; empty if it can't be."""
        steps = _Links(((), self._host_root), ()).resolve(_steps(path))
        return "" if steps is None else os.path.join(self._host_root, *steps)

    def _find_process_root(self) -> str:
        """`/proc/<pid>/root`, if the process is the container's: by the time we look the number may be another's."""
        pid = self._container.pid
        if pid <= 0:
            return ""
        process = os.path.join(self._host_root, f"proc/{pid}")
        try:
            with open(f"{process}/cgroup", encoding="utf-8", errors="replace") as groups:
                if self._container.id not in groups.read(65536):
                    return ""
            os.close(os.open(f"{process}/root", _LOOK))
        except OSError:
            return ""
        return f"{process}/root"

    # -- links ---------------------------------------------------------------------------------------------------

    def _without_links(self, steps: Steps) -> Steps:
        """The pattern with the links in its literal first steps replaced by what they lead to in the container."""
        wild = next((number for number, step in enumerate(steps) if _WILD.search(step)), len(steps))
        mounts = [
            (region.at, region.root) for region in self._regions if region.at and region.root and not region.inner
        ]
        fixed = _Links(((), self._view), mounts).resolve(steps[:wild]) if self._view else None
        if fixed is None or any(_WILD.search(step) for step in fixed):
            return steps
        return fixed + steps[wild:]


class _Links:
    """Resolves symbolic links within a tree made of a root directory and mounts, step by step and by descriptor."""

    def __init__(self, root: tuple[Steps, str], mounts: Sequence[tuple[Steps, str]]) -> None:
        self._directories = dict([*mounts, root])

    def resolve(self, steps: Steps) -> Steps | None:
        """The steps without links; what doesn't exist stays as it is. None where links lead in circles."""
        for _ in range(MOST_LINKS):
            done, link = self._first_link(steps)
            if link is None:
                return steps
            target = () if link.startswith("/") else done
            for step in (*link.split("/"), *steps[len(done) + 1 :]):
                if step == "..":
                    target = target[:-1]
                elif step not in ("", "."):
                    target = (*target, step)
            steps = target
        return None

    def _first_link(self, steps: Steps) -> tuple[Steps, str | None]:
        """The steps before the first one that is a link, and where that leads."""
        with contextlib.ExitStack() as opened:
            try:
                here = _open(opened, self._directories[()])
                for number, step in enumerate(steps):
                    done = steps[: number + 1]
                    if done in self._directories:
                        here = _open(opened, self._directories[done])
                        continue
                    mode = os.stat(step, dir_fd=here, follow_symlinks=False).st_mode
                    if stat.S_ISLNK(mode):
                        return steps[:number], os.readlink(step, dir_fd=here)
                    if number + 1 < len(steps):
                        here = _open(opened, step, here)
            except OSError:
                # Not there yet, no directory, or changed under us: what remains is taken as it is written.
                pass
        return steps, None


def upper_shows_writes(kernel: str) -> bool:
    """Whether a watch on overlayfs' upper directory sees what is written through the merged one.

    Measured with Linux 6.18. Older kernels open the file below with FMODE_NONOTIFY and hide it.
    """
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 18)


def _open(opened: contextlib.ExitStack, path: str, directory: int | None = None) -> int:
    fd = os.open(path, _LOOK if directory is None else _LOOK | os.O_NOFOLLOW, dir_fd=directory)
    opened.callback(os.close, fd)
    return fd


def is_process_root(root: str) -> bool:
    """Whether a place's root is somebody else's, or nobody's, once the container's process has ended."""
    return _PROCESS_ROOT.search(root) is not None


def _steps(path: str) -> Steps:
    return tuple(step for step in path.split("/") if step not in ("", "."))


def _remainders(pattern: Steps, directory: Steps) -> list[Steps]:
    """What remains of a pattern below a directory its first steps match; more than one way only with `**`."""
    ways = {0}
    for name in directory:
        ways |= {way + 1 for way in ways if way < len(pattern) and pattern[way] == _ANY_DEPTH}
        ways = {
            way if pattern[way] == _ANY_DEPTH else way + 1
            for way in ways
            if way < len(pattern) and (pattern[way] == _ANY_DEPTH or _matches(pattern[way], name))
        }
    return [pattern[way:] for way in sorted(ways)]


def _matches(step: str, name: str) -> bool:
    return step == name or (_WILD.search(step) is not None and fnmatch.fnmatchcase(name, step))
