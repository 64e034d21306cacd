"""The answers of the local API as types: what the daemon fills in and the command line shows.

One definition for both ends, so that a field can't be renamed on one side only. Plain values, encoded as JSON; times
are nanoseconds since the epoch, ages are seconds. No secret has a place here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostagent.model import Scalar


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """One health check: whether it passes, and if not, why and what to do."""

    name: str
    ok: bool
    reason: str = ""
    hint: str = ""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """All health checks; healthy means that every one passes."""

    healthy: bool
    ready: bool
    checks: tuple[CheckReport, ...] = ()


class NoticeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator should know."""

    subject: str
    message: str
    hint: str = ""


class OutputReport(msgspec.Struct, frozen=True, kw_only=True):
    """One output. `behind_bytes` are bytes that wait in files, `spooled_bytes` is the disk its spool takes.

    `lag_s` is how old the oldest byte is that waits in either; `dead_letters` are the refused records that are kept.
    """

    name: str
    type: str
    state: str
    state_age_s: float
    last_error: str = ""
    last_error_age_s: float | None = None
    behind_bytes: int = 0
    lag_s: float | None = None
    queued_blocks: int = 0
    unacked_blocks: int = 0
    unsent_bytes: int = 0
    spooled_blocks: int = 0
    spooled_bytes: int = 0
    spool_max_bytes: int = 0
    delivered_records: int = 0
    delivered_bytes: int = 0
    retries: int = 0
    dead_letters: int = 0


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One source and the sum of its files."""

    name: str
    type: str
    outputs: tuple[str, ...] = ()
    targets: int = 0
    files: int = 0
    open_files: int = 0
    behind_bytes: int = 0
    lag_s: float | None = None
    read_records: int = 0
    read_bytes: int = 0
    invalid_utf8: int = 0
    unparsed: int = 0
    dropped: int = 0
    lost_bytes: int = 0


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `GET /status`."""

    version: str
    pid: int
    host: str
    config: str
    data_dir: str
    uptime_s: float
    health: HealthReport
    sources: tuple[SourceReport, ...] = ()
    outputs: tuple[OutputReport, ...] = ()
    notices: tuple[NoticeReport, ...] = ()
    rss_bytes: int = 0
    cpu_s: float = 0.0
    open_fds: int = 0


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far one output has got in a file."""

    output: str
    offset: int
    behind_bytes: int


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One file generation of `GET /files`. Bytes of the path that are no UTF-8 are shown as hex escapes."""

    path: str
    source: str
    state: str
    size_bytes: int | None = None
    positions: tuple[PositionReport, ...] = ()
    target: str = ""
    storage: str = "file"
    device: int = 0
    inode: int = 0
    generation: int = 0
    tags: Mapping[str, Scalar] = {}


class FilesReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `GET /files`. `left_out` counts files past the limit a request asked for."""

    files: tuple[FileReport, ...] = ()
    left_out: int = 0


class ThingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one source makes of one thing with a name, such as a container, and the files it has of it."""

    subject: str
    source: str
    collected: bool
    steps: tuple[str, ...] = ()
    files: tuple[FileReport, ...] = ()


class ThingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `GET /explain?name=…`: everything that goes by a name."""

    name: str
    found: tuple[ThingReport, ...] = ()


class ExplainReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `GET /explain?path=…`: whether a path is collected, by which source, and the steps to it."""

    path: str
    collected: bool
    source: str = ""
    steps: tuple[str, ...] = ()
    file: FileReport | None = None
