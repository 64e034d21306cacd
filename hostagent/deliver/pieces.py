"""A block on the wire: usually one piece, several when the backend finds it too large or refuses some of its records.

Owns how a delivery is divided and what its pieces are called. A piece's id follows from the block's id and from which
records it holds, so after a crash the same division gives the same ids. It must not send anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostagent.deliver.compress import Compressor, decompress
from hostagent.digest import blake2b
from hostagent.hookspecs import Encoder
from hostagent.model import Block, Delivery, Part


def delivery_of(block: Block, encoder: Encoder, compressor: Compressor) -> Delivery:
    """Join and compress a block; what comes back is retried unchanged."""
    return Delivery(
        id=block.id,
        body=compressor.compress(encoder.join([part.payload for part in block.parts])),
        content_type=encoder.content_type,
        compression=compressor.name,
        records=block.records,
        observed_ns=block.observed_ns,
        block=block.id,
        indexes=block.indexes,
    )


def delivery_of_records(
    id_: str, records: list[bytes], observed_ns: int, encoder: Encoder, compressor: Compressor
) -> Delivery:
    """A delivery of its own, of records that were part of another one."""
    return Delivery(
        id=id_,
        body=compressor.compress(encoder.join(records)),
        content_type=encoder.content_type,
        compression=compressor.name,
        records=len(records),
        observed_ns=observed_ns,
        block=id_,
    )


def without_payload(block: Block) -> Block:
    """A block that still says what it covered, but no longer holds the memory."""
    parts = tuple(Part(part.ranges, part.chain, part.source, b"", part.records, part.raw_bytes) for part in block.parts)
    return Block(block.id, block.output, block.observed_ns, parts, block.indexes)


def records_of(delivery: Delivery, encoder: Encoder) -> list[bytes]:
    """The records of a delivery one by one, as its encoder separates them."""
    return encoder.split(decompress(delivery.body, delivery.compression))


def halves(delivery: Delivery, encoder: Encoder, compressor: Compressor) -> tuple[Delivery, ...]:
    """The two halves of a delivery; the delivery alone when it is a single record."""
    records = records_of(delivery, encoder)
    if len(records) < 2:
        return (delivery,)
    middle = (len(records) + 1) // 2
    every = range(len(records))
    return tuple(_piece(delivery, records, which, encoder, compressor) for which in (every[:middle], every[middle:]))


def rest(delivery: Delivery, retry: Sequence[int], encoder: Encoder, compressor: Compressor) -> Delivery:
    """The records of a delivery that the backend asked for again."""
    return _piece(delivery, records_of(delivery, encoder), retry, encoder, compressor)


def _piece(
    delivery: Delivery, records: list[bytes], which: Sequence[int], encoder: Encoder, compressor: Compressor
) -> Delivery:
    """Some records of a delivery, under an id that names exactly those: `<block>.r<hash of their indexes>`."""
    indexes = tuple(which) if delivery.indexes is None else tuple(delivery.indexes[index] for index in which)
    digest = blake2b(",".join(map(str, indexes)).encode(), digest_size=8).hexdigest()
    return msgspec.structs.replace(
        delivery,
        id=f"{delivery.block}.r{digest}",
        body=compressor.compress(encoder.join([records[index] for index in which])),
        compression=compressor.name,
        records=len(indexes),
        indexes=indexes,
    )
