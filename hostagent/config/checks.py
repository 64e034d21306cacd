"""What only the machine can answer about a configuration: directories that can't be used, files with two sources.

The last step of loading. It looks, and changes nothing. Whatever may still come (a log directory that an application
will create) is no mistake and is told as a notice by `config_notices`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hostagent.config.model import Config, SourceConfig
from hostagent.config.nodes import Place, Problems
from hostagent.hookspecs import Notice

_WILDCARD = re.compile(r"[*?\[]")
# The type whose options say which of the host's files are read: `include` and `exclude`.
_FILES = "file"


def include_of(source: SourceConfig) -> tuple[str, ...]:
    """The patterns a source of type `file` includes; nothing for every other type."""
    return tuple(getattr(source.options, "include", ())) if source.type == _FILES else ()


def exclude_of(source: SourceConfig) -> tuple[str, ...]:
    """The patterns a source of type `file` excludes."""
    return tuple(getattr(source.options, "exclude", ())) if source.type == _FILES else ()


def base_directory(pattern: str) -> str:
    """The directory a pattern can't leave: what comes before the first part with a wildcard, or the file's own."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
    return "/".join(parts[:fixed]) or "/"


def check_data_dir(path: Path, place: Place, problems: Problems, *, to_run: bool) -> None:
    """The data directory must be absolute and, `to_run`, it or the nearest existing one above it take files."""
    if not path.is_absolute():
        problems.add(place, f"data_dir must be an absolute path, found {str(path)!r}", "begin with /")
        return
    if not to_run:
        return
    existing = path
    try:
        while not _is_there(existing) and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            problems.add(place, f"data_dir {path}: {existing} is not a directory", "name a directory")
        elif os.statvfs(existing).f_flag & os.ST_RDONLY:
            hint = "remount it read-write, or choose another data_dir"
            problems.add(place, f"data_dir {path}: {existing} is on a read-only filesystem", hint)
        elif not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            hint = f"make it writable for user {os.geteuid()}, or choose another data_dir"
            problems.add(place, f"data_dir {path}: {existing} is not writable", hint)
    except OSError as error:
        problems.add(place, f"data_dir {path}: {error.strerror}", "choose another data_dir")


def _is_there(path: Path) -> bool:
    """Whether this user sees something there; an OSError when nothing can be, as with a name that is too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return True


def check_files(
    sources: Mapping[str, SourceConfig],
    places_of: Callable[[str], Mapping[str, Place]],
    scan: Callable[[Iterable[str], Iterable[str]], Iterable[str]] | None,
    problems: Problems,
    *,
    to_run: bool,
) -> None:
    """Base directories must be absolute and, `to_run`, readable, and no file may belong to two sources."""
    by_pattern: dict[str, str] = {}
    for name, source in sources.items():
        places = places_of(name)
        for pattern in include_of(source):
            place = places.get(pattern) or next(iter(places.values()))
            _check_base_directory(pattern, place, problems, to_run=to_run)
            first = by_pattern.setdefault(pattern, name)
            if first != name:
                other = places_of(first).get(pattern)
                hint = "a file has one source: give that one both outputs, or narrow one of the patterns"
                message = f"sources `{first}` and `{name}` both include {pattern!r} (the first at {other})"
                problems.add(place, message, hint)
    if scan is not None and not problems.found:
        _check_overlaps(sources, places_of, scan, problems)


def _check_base_directory(pattern: str, place: Place, problems: Problems, *, to_run: bool) -> None:
    if not pattern.startswith("/"):
        hint = "the daemon's working directory is not yours; begin with /"
        problems.add(place, f"expected an absolute path, found {pattern!r}", hint)
        return
    if not to_run:
        return
    directory = base_directory(pattern)
    try:
        # O_PATH would not ask for the right to list, which the search for files needs.
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    except OSError as error:
        hint = f"user {os.geteuid()} needs to read and enter it"
        problems.add(place, f"can't read the directory {directory}: {error.strerror}", hint)


def _check_overlaps(
    sources: Mapping[str, SourceConfig],
    places_of: Callable[[str], Mapping[str, Place]],
    scan: Callable[[Iterable[str], Iterable[str]], Iterable[str]],
    problems: Problems,
) -> None:
    """Two sources that match the same existing file; one example per pair is enough to act on."""
    with_files = [(name, source) for name, source in sources.items() if include_of(source)]
    if len(with_files) < 2:
        return
    owner: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for name, source in with_files:
        for path in scan(include_of(source), exclude_of(source)):
            first = owner.setdefault(path, name)
            if first != name and (first, name) not in told:
                told.add((first, name))
                place = next(iter(places_of(name).values()))
                other = next(iter(places_of(first).values()))
                hint = "a file has one source: exclude it from one of them"
                shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
                message = f"sources `{first}` and `{name}` both match {shown!r} (the first at {other})"
                problems.add(place, message, hint)


def config_notices(config: Config) -> list[Notice]:
    """What is no mistake but may not be meant."""
    notices = []
    if not config.sources:
        notices.append(Notice("sources", "no source is configured: nothing will be read", "add one under `sources:`"))
    used = {output for source in config.sources.values() for output in source.outputs}
    unused = [name for name in config.outputs if config.sources and name not in used]
    notices += [Notice(f"output {name}", "no source uses it", "name it in a source's `outputs`") for name in unused]
    for name, source in config.sources.items():
        for pattern in include_of(source):
            directory = base_directory(pattern)
            if not os.path.isdir(directory):
                message = f"{directory} does not exist yet; its files are read once it does"
                notices.append(Notice(f"source {name}", message, "check the spelling if it should exist"))
        for output in getattr(source.options, "declared_outputs", ()):
            if output not in config.outputs:
                message = f"declared_outputs offers `{output}`, and there is no such output"
                notices.append(Notice(f"source {name}", message, f"outputs are {', '.join(config.outputs)}"))
    return notices
