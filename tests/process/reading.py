"""Reads a file through a chain the way the reader does, whole or in pieces, and encodes what comes out."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from hostagent.model import Batch, Processed, Scalar
from hostagent.process.chain import Chain
from hostagent.process.ndjson import NdjsonEncoder

CONSTANTS: Mapping[str, Scalar] = {"host": "h", "path": "/var/log/a%s.log"}


def encoded(batches: Iterable[Batch]) -> bytes:
    encoder = NdjsonEncoder()
    payloads = []
    for batch in batches:
        made = encoder.encode(batch, 0)
        assert made.records == len(encoder.split(made.payload))
        assert batch.rows in (-1, made.records)
        payloads.append(made.payload)
    return encoder.join(payloads)


def objects(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in encoded(batches).splitlines()]


def bare(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """The records without the constants every one of them has."""
    return [{name: value for name, value in one.items() if name not in CONSTANTS} for one in objects(batches)]


def whole(chain: Chain, data: bytes) -> Processed:
    return chain.process(data, CONSTANTS, final=True)


def in_reads(chain: Chain, data: bytes, stops: Iterable[int]) -> tuple[bytes, list[tuple[int, int]]]:
    """Read up to each stop in turn, from where the last read left off; then to the end. Output and ranges taken."""
    position, payload, ranges = 0, b"", []
    for stop in sorted(stops):
        done = chain.process(data[position:stop], CONSTANTS, final=False)
        assert 0 <= done.consumed <= max(0, stop - position)
        if done.consumed:
            ranges.append((position, position + done.consumed))
            payload += encoded(done.batches)
            position += done.consumed
        else:
            assert not done.batches
    done = chain.process(data[position:], CONSTANTS, final=True)
    assert position + done.consumed == len(data)
    ranges.append((position, len(data)))
    return payload + encoded(done.batches), ranges


def assert_cuts_do_not_show(chain: Chain, data: bytes, stops: Iterable[int]) -> None:
    """However the file is read, the same bytes come out; and every range cut again gives its bytes again."""
    expected = encoded(whole(chain, data).batches)
    read, ranges = in_reads(chain, data, stops)
    assert read == expected
    again = b"".join(encoded(whole(chain, data[start:end]).batches) for start, end in ranges)
    assert again == expected
