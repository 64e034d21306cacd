"""One file being read: its identity, where each output stands in it, and the bytes that come next.

A TailedFile follows one file generation from the first byte to the last. It reads, checks its anchor at every read and
moves cursors; when to read, what the bytes mean and what follows a rotation are decided around it (`reader`,
`registry`, `ending`). Offsets count decoded bytes, so a generation that went on inside a `.gz` keeps its positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from hostagent.digest import blake2b
from hostagent.hookspecs import Content
from hostagent.model import FileId, Fingerprint, Scalar
from hostagent.state.rows import FileRow, Position
from hostagent.tail.files.identity import (
    ANCHOR_BYTES,
    FINGERPRINT_BYTES,
    NO_FINGERPRINT,
    anchor_of,
    begins_as,
    fingerprint_of,
    identify,
)
from hostagent.tail.origin import Origin
from hostagent.tail.ports import Lane

NO_ANCHOR = anchor_of(b"")
PLAIN = "file"


class RewrittenError(Exception):
    """The bytes before the position are not the ones that were read: truncated, or truncated and grown again."""


class Cursor:
    """One offset and the lanes that stand there; they are read for together until one of them has no room."""

    __slots__ = ("anchor", "lanes", "offset")

    def __init__(self, offset: int, anchor: bytes, lanes: tuple[Lane, ...]) -> None:
        self.offset = offset
        self.anchor = anchor
        self.lanes = lanes


class Fetched(NamedTuple):
    """Bytes at a position: `data` begins at the cursor's offset, `before` is what its anchor covers."""

    before: bytes
    data: bytes


class TailedFile:
    """One generation of one file. `path` is where it is on this host now, `recorded_path` what its records say."""

    __slots__ = (
        "acked",
        "begun_in_look",
        "behind_since_s",
        "closed",
        "constants",
        "content",
        "cursors",
        "drained",
        "drop_size",
        "ended_at_s",
        "fingerprint",
        "generation",
        "grew_at_s",
        "identity",
        "is_copy",
        "noted_length",
        "origin",
        "path",
        "paths",
        "place_in_line",
        "predecessor",
        "queued",
        "recorded_path",
        "row",
        "seen_ns",
        "signature",
        "storage",
        "successor",
        "suspended",
        "tags",
        "unread",
    )

    def __init__(self, path: str, identity: FileId, origin: Origin, *, seen_ns: int) -> None:
        self.row = 0
        self.path = path
        self.paths: tuple[str, ...] = ()
        self.recorded_path = origin.recorded(path)
        self.identity = identity
        self.generation = 0
        self.fingerprint: Fingerprint = NO_FINGERPRINT
        self.noted_length = 0  # of the fingerprint in the checkpoint
        self.begun_in_look = 0
        self.storage = PLAIN
        self.is_copy = False
        self.place_in_line = (True, 0)  # see Succession
        self.origin = origin
        self.tags = origin.target.tags
        self.constants: Mapping[str, Scalar] | None = None
        self.signature = ""
        self.content: Content | None = None
        self.cursors = [Cursor(0, NO_ANCHOR, origin.lanes)]
        self.acked: dict[str, int] | None = None
        self.seen_ns = seen_ns
        self.queued = False
        self.unread = True
        self.closed = False
        self.drained = False
        # Set when no target wants the file any more: how far it is still read.
        self.drop_size: int | None = None
        self.suspended = False
        self.grew_at_s = 0.0
        self.behind_since_s: float | None = None
        self.ended_at_s: float | None = None
        self.predecessor: TailedFile | None = None
        self.successor: TailedFile | None = None

    @property
    def ended(self) -> bool:
        """Whether the file has lost its place (rotated away, deleted, target removed) and is only drained."""
        return self.ended_at_s is not None

    @property
    def head(self) -> int:
        """The furthest offset any lane has read to."""
        return max(cursor.offset for cursor in self.cursors)

    @property
    def tail(self) -> int:
        """The offset of the lane that is furthest behind."""
        return min(cursor.offset for cursor in self.cursors)

    def leader(self) -> Cursor:
        """The cursor that is furthest ahead."""
        return max(self.cursors, key=lambda cursor: cursor.offset)

    def fetch(self, cursor: Cursor, size: int) -> Fetched:
        """Read up to `size` bytes at the cursor, believing its offset only if the bytes before it are still there.

        The anchor's bytes come in the same read, so checking costs no system call; at the beginning, where there are
        none, the fingerprint speaks. Raises RewrittenError, OSError.
        """
        assert self.content is not None
        lead = min(cursor.offset, ANCHOR_BYTES)
        data = self.content.read(cursor.offset - lead, size + lead)
        before = data[:lead]
        if len(before) < lead or anchor_of(before) != cursor.anchor:
            raise RewrittenError
        if lead == 0 and not begins_as(data, self.fingerprint):
            raise RewrittenError
        return Fetched(before, data[lead:])

    def advance(self, cursor: Cursor, fetched: Fetched, consumed: int) -> None:
        """Move the cursor past `consumed` bytes of what was fetched there, and its anchor with it."""
        if self.fingerprint.length < FINGERPRINT_BYTES:
            self._grow_fingerprint(cursor.offset, fetched)
        cursor.offset += consumed
        if consumed >= ANCHOR_BYTES:
            cursor.anchor = anchor_of(fetched.data[consumed - ANCHOR_BYTES : consumed])
        else:
            cursor.anchor = anchor_of(fetched.before + fetched.data[:consumed])

    def _grow_fingerprint(self, offset: int, fetched: Fetched) -> None:
        """Let the fingerprint cover more of the file's beginning, but only of the content these bytes were read from.

        By now the file may have been truncated and have another beginning: with that, its copy would be nobody's.
        """
        head = fetched.before + fetched.data[:FINGERPRINT_BYTES]
        if (start := offset - len(fetched.before)) > 0:
            assert self.content is not None
            try:
                head = self.content.read(0, FINGERPRINT_BYTES)
                same = self.content.read(start, len(fetched.before)) == fetched.before
            except OSError:
                return
            if not same or not begins_as(head, self.fingerprint):
                return
        if min(len(head), FINGERPRINT_BYTES) > self.fingerprint.length:
            self.fingerprint = fingerprint_of(head)

    def split(self, cursor: Cursor, lanes: tuple[Lane, ...]) -> Cursor:
        """Let `lanes` go on alone from the cursor's offset; the others stay behind."""
        cursor.lanes = tuple(lane for lane in cursor.lanes if lane not in lanes)
        ahead = Cursor(cursor.offset, cursor.anchor, lanes)
        self.cursors.append(ahead)
        return ahead

    def merge(self) -> None:
        """Join cursors that stand at the same offset again."""
        if len(self.cursors) == 1:
            return
        joined: dict[int, Cursor] = {}
        for cursor in self.cursors:
            other = joined.setdefault(cursor.offset, cursor)
            if other is not cursor:
                # In the target's own order, so that lanes share their payloads as they did before.
                other.lanes = tuple(lane for lane in self.origin.lanes if lane in other.lanes or lane in cursor.lanes)
        self.cursors = list(joined.values())

    def place(self, positions: Mapping[str, Position]) -> None:
        """Put every lane where the checkpoint has it; a lane the checkpoint doesn't know starts at 0."""
        self.cursors = []
        self.acked = {}
        for lane in self.origin.lanes:
            position = positions.get(lane.name, Position(0, NO_ANCHOR))
            self.cursors.append(Cursor(position.offset, position.anchor, (lane,)))
            self.acked[lane.name] = position.offset
        self.merge()

    def follow(self, before: TailedFile | None) -> None:
        """A record may run on from the end of that file into the beginning of this one."""
        self.predecessor = before
        if before is not None:
            before.successor = self

    def positions(self) -> dict[str, Position]:
        """Where each lane has read to."""
        return {lane.name: Position(cursor.offset, cursor.anchor) for cursor in self.cursors for lane in cursor.lanes}

    def reassign(self, origin: Origin) -> None:
        """Go on for a changed target: outputs keep their offsets, those that are new start as the source says."""
        offsets = {lane.name: (lane, cursor) for cursor in self.cursors for lane in cursor.lanes}
        leader = self.leader()
        self.cursors = []
        for lane in origin.lanes:
            known = offsets.get(lane.name)
            if known is not None and known[0] is lane:
                self.cursors.append(Cursor(known[1].offset, known[1].anchor, (lane,)))
            elif known is None and origin.policy.start_at == "end":
                self.cursors.append(Cursor(leader.offset, leader.anchor, (lane,)))
            else:
                # A lane that took another's place begins where that one's acks ended.
                self.cursors.append(self._cursor_at((self.acked or {}).get(lane.name, 0), lane))
        self.origin = origin
        self.tags = origin.target.tags
        self.constants = None
        self.suspended = False
        self.merge()

    def _cursor_at(self, offset: int, lane: Lane) -> Cursor:
        """A lane at an offset; at the beginning where the file can't be read now: rather twice than not at all."""
        lead = min(offset, ANCHOR_BYTES)
        if lead and self.content is not None:
            try:
                return Cursor(offset, anchor_of(self.content.read(offset - lead, lead)), (lane,))
            except OSError:
                pass
        return Cursor(0, NO_ANCHOR, (lane,))

    def note_ack(self, lane: str, end: int, now_s: float) -> None:
        """Remember how far an output has acked."""
        if self.acked is None:
            self.acked = {}
        self.acked[lane] = max(end, self.acked.get(lane, 0))
        self.behind_since_s = None if self.all_acked() else now_s

    def all_acked(self) -> bool:
        """Whether every output has acked everything that was read for it."""
        acked = self.acked or {}
        return all(acked.get(lane.name, 0) >= cursor.offset for cursor in self.cursors for lane in cursor.lanes)

    def acked_by_all(self) -> int:
        """The offset before which no output needs the file any more."""
        acked = self.acked or {}
        return min((acked.get(lane.name, 0) for lane in self.origin.lanes), default=0)

    def record_constants(self) -> Mapping[str, Scalar]:
        """The constants of every record of this file."""
        if self.constants is None:
            self.constants = {**self.origin.constants, **self.tags, "path": self.recorded_path}
            self.signature = _signature(self.origin.chain.digest, self.constants)
        return self.constants

    def size(self) -> int | None:
        """Bytes in the file now; None when it isn't open or that would take decoding (a `.gz`)."""
        if self.content is None or self.storage != PLAIN:
            return None
        return identify(self.content.fd).size

    @property
    def nameless(self) -> bool:
        """Whether the file was deleted: nobody can read it again once its descriptor is closed."""
        return self.content is not None and self.storage == PLAIN and identify(self.content.fd).nlink == 0

    def close(self) -> None:
        """Give the descriptor back; the cursors stay."""
        if self.content is not None:
            self.content.close()
            self.content = None

    def to_row(self, gone_ns: int | None = None) -> FileRow:
        """The file as the checkpoint keeps it. Positions are not part of it: they move with acks only."""
        return FileRow(
            id=self.row,
            identity=self.identity,
            generation=self.generation,
            fingerprint=self.fingerprint,
            path=self.path,
            target=self.origin.target.id,
            source=self.origin.target.source,
            tags={**self.tags, "path": self.recorded_path},
            storage=self.storage,
            seen_ns=self.seen_ns,
            gone_ns=gone_ns,
            positions={},
        )


def _signature(chain: str, constants: Mapping[str, Scalar]) -> str:
    """Names everything but the bytes that decides what records look like: the chain, and the constants they carry.

    Tags may change while a block is in flight (a container is renamed). Cut again with other tags it would be another
    block, so it must not have the same name.
    """
    digest = blake2b(msgspec.json.encode(constants, order="deterministic"), digest_size=8)
    return f"{chain}-{digest.hexdigest()}"
