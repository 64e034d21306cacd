"""The source type `file`: the administrator says which paths to read, by absolute globs.

There is nothing to find out beyond that: one target is published and the thread ends. Following what the globs match
as files come and go is the work of `tail`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from hostagent.hookspecs import Notice, Wiring
from hostagent.model import Target, TargetChange


class FilesOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read. `exclude` takes absolute globs, and names without a slash for files of any directory (`*.gz`)."""

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.include:
            raise ValueError("include: is empty: name at least one absolute path or glob, such as /var/log/*.log")
        for pattern in self.include:
            _check_path("include", pattern)
        for pattern in self.exclude:
            if "/" in pattern:
                _check_path("exclude", pattern)
            elif not pattern:
                raise ValueError("exclude: has an empty entry")


def _check_path(option: str, pattern: str) -> None:
    if not pattern.startswith("/"):
        raise ValueError(f"{option}: {pattern!r} is not an absolute path, which begins with /")
    if "\0" in pattern:
        raise ValueError(f"{option}: {pattern!r} has a NUL in it")
    if ".." in pattern.split("/"):
        raise ValueError(f"{option}: {pattern!r} has '..' in it; write the path without")
    if pattern.endswith("/"):
        raise ValueError(f"{option}: {pattern!r} names a directory; end it with a file name or *")


class FilesDiscovery:
    """Publishes one target for the source."""

    def __init__(self, options: FilesOptions, source: str) -> None:
        self._target = Target(
            id=f"file:{source}",
            source=source,
            paths=options.include,
            exclude=options.exclude,
            declaration="configuration file",
        )

    def run(self, publish: Callable[[TargetChange], None], stop: threading.Event) -> None:
        publish(TargetChange("added", self._target))

    def notices(self) -> list[Notice]:
        return []


def build_files(options: FilesOptions, wiring: Wiring) -> FilesDiscovery:
    """Build the discovery of one source."""
    return FilesDiscovery(options, wiring.name)
