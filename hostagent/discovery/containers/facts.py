"""How containers ended, as records: exit code, restarts, whether memory ran out, and the runtime's reason.

The discovery appends one JSON line for each end to a small file of the agent's own, and that file is a target like any
other: it is read, kept position of and delivered as logs are. At most two files of 1 MiB are kept for a source, and
what they hold is also how an end is known to have been told.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hostagent.clock import Clock
from hostagent.discovery.runtime.container import Container, ContainerState
from hostagent.hookspecs import Notice
from hostagent.model import Scalar, Target

MAX_FILE_BYTES = 1024 * 1024
_OLDER = ".1"


class _Told(msgspec.Struct, frozen=True):
    """What is read back of a record."""

    container_id: str = ""
    finished_at: str = ""


_TOLD = msgspec.json.Decoder(_Told)


class Facts:
    """One source's file of container ends. Used by the source's thread alone."""

    def __init__(self, data_dir: Path, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._path = data_dir / "container-facts" / f"{source}.log"
        self._told: set[tuple[str, str]] = set()
        self._older_told: set[tuple[str, str]] = set()
        self._forgotten_before = ""
        self._problem = ""
        self._remember()

    def target(self) -> Target:
        """The file, to be read a line at a time whatever the source says about its containers' lines."""
        path = glob.escape(str(self._path))
        return Target(
            id=f"{self._source}/facts",
            source=self._source,
            paths=(path, path + _OLDER),
            format="raw",
            multiline={"end": "$"},
            parse={"type": "json"},
            start_at="beginning",
            declaration=f"facts of source {self._source}",
        )

    def note(self, container: Container, tags: Mapping[str, Scalar], *, removed: bool = False) -> None:
        """Write down that the container has ended, unless it has not, or has been written down before."""
        finished_at = _stamp(container.finished_ns) if container.finished_ns else ""
        ran = container.state in (ContainerState.RUNNING, ContainerState.PAUSED)
        if not finished_at:
            if not (removed and ran):
                return
            finished_at = _stamp(self._clock.wall_ns())
        key = (container.id, finished_at)
        if key in self._told or key in self._older_told or finished_at <= self._forgotten_before:
            return
        ended = container.state is ContainerState.EXITED
        record: dict[str, object] = {
            "time": finished_at,
            "message": f"container {container.name} {_how(container, ended=ended, removed=removed)}",
            "event": "exited" if ended else "removed" if removed else "restarted",
            "exit_code": container.exit_code if ended else None,
            "restart_count": container.restarts,
            "oom_killed": container.oom_killed,
            "reason": container.reason,
            "started_at": _stamp(container.started_ns) if container.started_ns else None,
            "finished_at": finished_at,
        }
        record = {name: value for name, value in record.items() if value is not None}
        self._append(msgspec.json.encode({**tags, **record}) + b"\n", key)

    def notices(self) -> list[Notice]:
        """Why ends are not written down, if they are not."""
        if not self._problem:
            return []
        return [Notice(f"source {self._source}", f"container facts can't be written: {self._problem}")]

    def _append(self, line: bytes, key: tuple[str, str]) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(fd).st_size
                # A line that a crash tore ends here, so that it spoils no other.
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                os.write(fd, b"\n" + line if torn else line)
            finally:
                os.close(fd)
            self._told.add(key)
            if size + len(line) > MAX_FILE_BYTES:
                self._rotate()
        except OSError as error:
            self._problem = str(error)
        else:
            self._problem = ""

    def _rotate(self) -> None:
        self._path.rename(f"{self._path}{_OLDER}")
        if self._older_told:
            self._forgotten_before = max(finished_at for _, finished_at in self._older_told)
        self._older_told, self._told = self._told, set()

    def _remember(self) -> None:
        self._told = _told_in(self._path)
        self._older_told = _told_in(Path(f"{self._path}{_OLDER}"))
        if self._older_told:
            # Whatever ended before all that is remembered was told in a file that is gone.
            self._forgotten_before = min(finished_at for _, finished_at in self._older_told)


def _told_in(path: Path) -> set[tuple[str, str]]:
    told: set[tuple[str, str]] = set()
    try:
        data = path.read_bytes()
    except OSError:
        return told
    for line in data.splitlines():
        try:
            one = _TOLD.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        told.add((one.container_id, one.finished_at))
    return told


def _how(container: Container, *, ended: bool, removed: bool) -> str:
    if ended:
        memory = ", out of memory" if container.oom_killed else ""
        return f"exited with code {container.exit_code}{memory}"
    return "was removed while it ran" if removed else "was restarted"


def _stamp(ns: int) -> str:
    """RFC 3339 with all nine digits, so that stamps sort as times do."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
