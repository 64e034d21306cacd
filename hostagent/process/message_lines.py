"""The `raw` encoder: messages as lines, without any of the fields around them.

Last stage before a block, for outputs that are to hold what the applications wrote. A record without a message, because
a parser took it apart, is written as JSON. What counts as a record here is a line: a message of several is several.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hostagent.model import Batch, Encoded
from hostagent.process.ndjson import encode_cells, encode_records
from hostagent.process.text import cells_of, columns_of, is_lines, occurrences

MESSAGE = "message"


class RawLinesOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The raw encoder has no options."""


class RawLinesEncoder:
    """Encodes batches as lines of text."""

    content_type = "text/plain; charset=utf-8"
    timed = False

    def encode(self, batch: Batch, observed_ns: int) -> Encoded:
        payload = _lines_of(batch)
        return Encoded(payload, occurrences(b"\n", payload))

    def join(self, payloads: list[bytes]) -> bytes:
        return b"".join(payloads)

    def split(self, body: bytes) -> list[bytes]:
        return [line + b"\n" for line in body.split(b"\n")[:-1]]


def _lines_of(batch: Batch) -> bytes:
    if batch.text is not None and is_lines(batch.text):
        return batch.text.data
    if batch.records is not None:
        return b"".join([_line(record, batch) for record in batch.records])
    columns = columns_of(batch)
    if MESSAGE in columns:
        return b"\n".join([*columns[MESSAGE], b""])
    return encode_cells(tuple(columns), cells_of(zip(*columns.values(), strict=True)), batch.constants).payload


def _line(record: dict[str, Any], batch: Batch) -> bytes:
    message = record.get(MESSAGE)
    if isinstance(message, str):
        return message.encode("utf-8", "replace") + b"\n"
    return encode_records([record], batch.constants).payload
