"""The configuration as the rest of the agent sees it: frozen values that have been checked already.

Every stage is built from these and from nothing else. Durations are seconds (`_s`), sizes are bytes (`_bytes`); in
YAML a duration's key has no `_s` and both may carry a unit (`flush_after: 5s`, `max_bytes: 2GiB`). The module holds
types and defaults only: reading, checking and comparing are the business of its neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hostagent.config.listen import parse_listen
from hostagent.hookspecs import Pattern
from hostagent.model import Scalar

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# A spool that drops needs two segments: the one that is being delivered stays.
LEAST_TO_DROP_FROM_BYTES = 2 * MIB

Positive = Annotated[int, msgspec.Meta(gt=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]


class PartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A framing, parser, processor or encoder by name, with its options validated as its own Struct."""

    type: str
    options: msgspec.Struct


class MultilineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines belong to one record: at least one of `start`, `continue` and `end` is a pattern."""

    start: Pattern | None = None
    continue_: Pattern | None = msgspec.field(default=None, name="continue")
    end: Pattern | None = None
    negate: bool = False
    flush_after_s: PositiveSeconds = 5.0
    max_bytes: Positive = MIB

    def __post_init__(self) -> None:
        if self.start is None and self.continue_ is None and self.end is None:
            raise ValueError("multiline needs at least one of `start`, `continue` and `end`")


class BlockConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a block is cut: at so many bytes of encoded records, or when it has been open for so long."""

    max_bytes: Positive = MIB
    max_wait_s: PositiveSeconds = 0.5


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Disk an output may use while its backend is down or slow."""

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2 * GIB
    reserve_bytes: Annotated[int, msgspec.Meta(ge=0)] = GIB
    when_full: Literal["block", "drop_oldest"] = "block"

    def __post_init__(self) -> None:
        if self.when_full == "drop_oldest" and self.max_bytes < LEAST_TO_DROP_FROM_BYTES:
            raise ValueError("max_bytes: drop_oldest gives up a whole segment at a time, it needs at least 2MiB")


class DeadLettersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Disk for what an output's backend refused for good; 0 keeps none, and the ledger says what it was."""

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 256 * MIB


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One source: where its targets come from, how bytes become records, and which outputs get them."""

    name: str
    type: str
    options: msgspec.Struct
    format: PartConfig
    multiline: MultilineConfig | None = None
    parse: PartConfig | None = None
    processors: tuple[PartConfig, ...] = ()
    fields: dict[str, Scalar] = {}
    outputs: tuple[str, ...] = ()
    start_at: Literal["beginning", "end"] = "beginning"
    encoding: str = "utf-8"
    invalid_utf8: Literal["replace", "base64"] = "replace"
    max_line_bytes: Positive = MIB
    flush_partial_after_s: PositiveSeconds | None = None
    close_grace_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    drop_page_cache: bool = False


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One output: which backend, in which wire form, in blocks of what size, and what it may keep on disk.

    `compression` None leaves the choice to the output: zstd for a backend far away, none for what stays on this
    machine.
    """

    name: str
    type: str
    options: msgspec.Struct
    encoding: PartConfig
    compression: Literal["zstd", "gzip", "none"] | None = None
    compression_level: Annotated[int, msgspec.Meta(ge=1, le=22)] = 1
    block: BlockConfig = BlockConfig()
    spool: SpoolConfig = SpoolConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent as a whole may take. `max_open_files` None: three quarters of the process's own limit."""

    max_open_files: Positive | None = None
    max_inflight_bytes: Positive = 16 * MIB
    max_deleted_bytes: Positive = GIB
    chunk_bytes: Positive = 512 * KIB
    rescan_interval_s: PositiveSeconds = 60.0
    stop_timeout_s: PositiveSeconds = 20.0


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the local API listens, `unix:/path` or `host:port`; TCP serves metrics and health only unless told."""

    listen: tuple[str, ...] = ("unix:/run/hostagent/api.sock",)
    tcp_serves_all: bool = False

    def __post_init__(self) -> None:
        known = set()
        for text in self.listen:
            try:
                address = parse_listen(text)
            except ValueError as error:
                raise ValueError(f"listen: {error}") from None
            if address in known:
                raise ValueError(f"listen: {text!r} is listed twice")
            known.add(address)


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's own log on stderr. `auto` is pretty on a terminal and one `key=value` line per event elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "pretty", "logfmt", "json"] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a configuration file and its conf.d say."""

    data_dir: Path
    sources: dict[str, SourceConfig]
    outputs: dict[str, OutputConfig]
    host: str | None = None
    api: ApiConfig = ApiConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
