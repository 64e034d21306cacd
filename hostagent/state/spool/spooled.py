"""What a frame of the spool says: a block without its payloads, and the delivery that was made of it.

The spool writes and reads these; the command line shows them. `weigh` reads three numbers and skips the rest, so that
taking stock of gigabytes at start costs little. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hostagent.model import Block, Delivery, Loss
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import InflightPart, parts_of

SPOOL_DIRECTORY = "spool"
BLOCK_FRAME = 1


class Place(NamedTuple):
    """Where a frame begins: the number of a segment and a byte in it. Later places compare as greater."""

    segment: int
    offset: int


class SpoolHeader(msgspec.Struct, frozen=True, gc=False):
    """What a frame says about its block, readable without the payload."""

    id: str
    output: str
    observed_ns: int
    spooled_ns: int
    parts: tuple[InflightPart, ...]
    content_type: str
    compression: str
    records: int
    raw_bytes: int
    delivery_id: str
    indexes: tuple[int, ...] | None = None


class Weight(msgspec.Struct, gc=False):
    """The part of a header that statistics need."""

    observed_ns: int
    records: int
    raw_bytes: int


class SpooledBlock(msgspec.Struct, frozen=True):
    """A block as it was spooled: the same id and the same body, however often it is read."""

    header: SpoolHeader
    delivery: Delivery

    @property
    def id(self) -> str:
        """The block's id."""
        return self.header.id

    @property
    def parts(self) -> tuple[InflightPart, ...]:
        """Where the block's records came from."""
        return self.header.parts


_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(SpoolHeader).decode
_decode_weight = msgspec.msgpack.Decoder(Weight).decode


def directory_name(output: str) -> str:
    """A file name for an output's name, whatever characters that has."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"%{ord(match[0]):02x}", output)


def encode_block(block: Block, delivery: Delivery, spooled_ns: int) -> bytes:
    """The header of a block's frame; its payload is the delivery's body."""
    header = SpoolHeader(
        block.id,
        block.output,
        block.observed_ns,
        spooled_ns,
        parts_of(block),
        delivery.content_type,
        delivery.compression,
        delivery.records,
        block.raw_bytes,
        delivery.id,
        None if delivery.indexes is None else tuple(delivery.indexes),
    )
    return _encode_header(header)


def decode_header(header: bytes) -> SpoolHeader:
    """The header of a frame whose checksum was right."""
    return _decode_header(header)


def decode_block(header: bytes, payload: bytes) -> SpooledBlock:
    """A block with its delivery, the same that was spooled."""
    known = _decode_header(header)
    delivery = Delivery(
        known.delivery_id,
        payload,
        known.content_type,
        known.compression,
        known.records,
        known.observed_ns,
        known.id,
        known.indexes,
    )
    return SpooledBlock(known, delivery)


def weigh(header: bytes) -> Weight:
    """The numbers of a header that statistics need."""
    return _decode_weight(header)


def losses_in(parts: Sequence[InflightPart], output: str, reason: LossReason, at_ns: int) -> list[Loss]:
    """The ledger lines for a block that will not be delivered; the checkpoint knows the paths."""
    return [
        Loss(part.source, "", range_.file, range_.start, range_.end, reason, at_ns, output)
        for part in parts
        for range_ in part.ranges
    ]


def merge(losses: Sequence[Loss]) -> list[Loss]:
    """Consecutive ranges of one file as one loss."""
    merged: dict[tuple[int, str, str, int | None], Loss] = {}
    for loss in losses:
        before = merged.pop((loss.file, loss.source, loss.path, loss.start), None)
        start = before.start if before is not None else loss.start
        joined = msgspec.structs.replace(loss, start=start)
        merged[loss.file, loss.source, loss.path, loss.end] = joined
    return list(merged.values())
