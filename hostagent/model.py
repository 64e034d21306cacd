"""The values that flow from a file to a backend, in the order in which they appear.

Every stage takes one of these and makes the next: Target, Range, Batch, Part, Block, Delivery, Verdict. They
hold data only; nothing here opens, reads, waits or logs. Sizes are bytes, offsets count bytes of the (decompressed)
file, times are nanoseconds since the epoch unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

Scalar = str | int | float | bool | None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to read, as a discovery declares it: a set of paths beneath a root, with its tags.

    A target with an absolute glob under `/` is a host's files; a container's stdout is one literal path; a log
    inside a container is a glob beneath that container's root. `format`, `multiline` and `parse`, when set, take the
    place of the source's own (a declaration can name them); they are raw option mappings, validated by the daemon
    with the same model as the configuration file. `shown_root`, when set, stands for `root` in the `path` of records:
    the container's own name for that directory. `promised` says that its first path led to a file when the target was
    declared: if the target is removed and none was ever found, its lines are lost, and the ledger says so.
    """

    id: str
    source: str
    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    root: str = "/"
    shown_root: str | None = None
    tags: Mapping[str, Scalar] = {}
    format: str | None = None
    multiline: Mapping[str, Any] | None = None
    parse: Mapping[str, Any] | None = None
    outputs: tuple[str, ...] | None = None
    start_at: str | None = None
    declaration: str = ""
    promised: bool = False


class TargetChange(msgspec.Struct, frozen=True):
    """What a discovery publishes. `removed` means: drain what is there, then close; never: close.

    `listed`, without a target, says that everything that was there at start has been published: blocks that were in
    flight at a crash are cut again only then. A discovery whose `run` returns has listed everything.
    """

    kind: str  # "added" | "changed" | "removed" | "listed"
    target: Target | None = None


class FileId(NamedTuple):
    """What the kernel calls a file. `birth_ns` is statx's btime, 0 where the filesystem keeps none."""

    device: int
    inode: int
    birth_ns: int


class Fingerprint(NamedTuple):
    """A hash of a file's first `length` bytes (at most 1 KiB). It grows with the file; length 0 says nothing."""

    length: int
    digest: bytes


class Range(NamedTuple):
    """Bytes [start, end) of one file generation; `file` is its row in the checkpoint database.

    `anchor` is the 16-byte BLAKE2b digest of the at most 256 bytes before `end`: a position is only believed while the
    file still has those bytes there.
    """

    file: int
    start: int
    end: int
    anchor: bytes


class Text(msgspec.Struct, frozen=True):
    r"""One or more text columns joined in a single buffer, so that no Python object is made per row.

    Each row is `value0 seps[0] value1 seps[1] … valueN seps[N]`, and the buffer is rows laid end to end, so it ends
    with the last separator. A separator occurs nowhere but at its place; it holds no byte that a JSON string must
    escape unless `escaped` is set. `escaped` means the values are already the inside of JSON strings (docker's
    json-file). A raw log chunk is `Text(("message",), chunk, (b"\n",))`. Always valid UTF-8.
    """

    names: tuple[str, ...]
    data: bytes
    seps: tuple[bytes, ...]
    escaped: bool = False


class Batch(msgspec.Struct, kw_only=True):
    """Records of one shape, as columns: `constants` are the same for every row and are written once.

    Exactly one of `text` (joined columns), `cells` (a table of UTF-8 bytes under `names`, row after row in one list)
    and `records` (materialised rows, values of any JSON type) carries the rows. `rows` is -1 where nobody has counted
    yet: the encoder learns it on the way.
    """

    rows: int
    constants: Mapping[str, Scalar]
    text: Text | None = None
    names: tuple[str, ...] = ()
    cells: list[bytes] | None = None
    records: list[dict[str, Any]] | None = None


class Processed(msgspec.Struct, kw_only=True):
    """What a chain made of some bytes: batches in order, and how many bytes (whole records) they cover.

    Bytes past `consumed` belong to a record that has not ended; they stay in the file and are read again later, so
    no stage holds state between reads.
    """

    batches: list[Batch]
    consumed: int
    invalid_utf8: int = 0
    unparsed: int = 0
    dropped: int = 0


class Encoded(NamedTuple):
    """Records in an output's wire form, ready to be joined into a block."""

    payload: bytes
    records: int


class Part(msgspec.Struct, frozen=True):
    """One chunk's share of a block: where it came from and its encoded records.

    `ranges` are consecutive in the order they were read; more than one only where a record runs across a rotation.
    `chain` is the digest of the configuration that made the payload: the same ranges under the same chain always give
    the same bytes. `source` is the name of the source, `raw_bytes` what the ranges add up to.
    """

    ranges: tuple[Range, ...]
    chain: str
    source: str
    payload: bytes
    records: int
    raw_bytes: int


class Block(msgspec.Struct, frozen=True):
    """What one request carries: parts of many files for one output, cut by size or by time, under a fixed id.

    `id` is a hash of the ranges and chains; `observed_ns` is the wall time the block was opened and stands for
    "observed at" wherever a record has no time of its own. Both are kept with the in-flight row, so the block cut
    again after a crash has the same bytes under the same id.

    If a file is gone by then, the other parts are cut again without it, and `indexes` says which of the block's records
    these are (None: all, in order). The id stays, since a backend that knows it has all of them.
    """

    id: str
    output: str
    observed_ns: int
    parts: tuple[Part, ...]
    indexes: Sequence[int] | None = None

    @property
    def records(self) -> int:
        """Records in the block."""
        return sum(part.records for part in self.parts)

    @property
    def raw_bytes(self) -> int:
        """Bytes of log file the block covers."""
        return sum(part.raw_bytes for part in self.parts)

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the payload before compression."""
        return sum(len(part.payload) for part in self.parts)


class Delivery(msgspec.Struct, frozen=True):
    """A block as an output sees it: one body, compressed once, retried unchanged under the same id.

    A block that was too large or partly refused comes in pieces, and one whose files are partly gone after a crash
    without some of its records. `block` is the id of the whole, and `indexes` says which of its records these are
    (None: all, in order), so that both together name a record however it is sent.
    """

    id: str
    body: bytes
    content_type: str
    compression: str  # "zstd" | "gzip" | "none"
    records: int
    observed_ns: int
    block: str = ""
    indexes: Sequence[int] | None = None

    @property
    def incomplete(self) -> bool:
        """Whether more records may have been sent under this id before a crash; those left are the same bytes."""
        return self.indexes is not None and self.id == self.block


class Outcome(StrEnum):
    """How a backend answered for a delivery."""

    ACKED = "acked"
    PARTIAL = "partial"  # some records refused: see Verdict.retry and Verdict.dead
    TOO_LARGE = "too_large"  # split in two and send the halves


class Verdict(msgspec.Struct, frozen=True):
    """A backend's answer. `retry` and `dead` name records by their index in the body; all others are acked.

    Failures of the whole delivery are raised instead: TemporaryError to try again, PermanentError to dead-letter it.
    """

    outcome: Outcome = Outcome.ACKED
    retry: Sequence[int] = ()
    dead: Sequence[tuple[int, str]] = ()


class Loss(msgspec.Struct, frozen=True):
    """A line of the loss ledger: bytes that were written but will never be delivered, and why.

    `end` is None where nobody can know how much it was (what copytruncate dropped between its copy and its truncate).
    """

    source: str
    path: str
    file: int
    start: int
    end: int | None
    reason: str
    at_ns: int
    output: str = ""  # empty: lost to every output
