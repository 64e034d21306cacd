"""The frame: how one block or dead letter stands in a segment file, and how to find the next one after damage.

`magic · version · kind · marker · lengths · crc32 of the payload · crc32 of that and the header · header · payload`.
The marker is eight random bytes drawn per segment: a log line that looks like a frame can't be taken for one after
damage, because nobody who writes logs knows the marker. This module reads and checks bytes; it never changes a file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

VERSION = 1
_MAGIC = b"HAF" + bytes([VERSION])
_PREFIX = struct.Struct("<4sB3x8sIIII")
PREFIX_BYTES = _PREFIX.size
MARKER_BYTES = 8
_HEAD_CRC_AT = PREFIX_BYTES - 4
_MARKER_AT = 8
# A length beyond these is damage, whatever its checksum says: it must not make us allocate memory. None is written.
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_PAYLOAD_BYTES = 512 * 1024 * 1024
_SEARCH_BYTES = 1024 * 1024


class Frame(NamedTuple):
    """A frame whose head is sound; the payload has not been looked at unless someone did."""

    offset: int
    kind: int
    header: bytes
    payload_bytes: int
    payload_crc: int

    @property
    def payload_offset(self) -> int:
        """Where the payload begins."""
        return self.offset + PREFIX_BYTES + len(self.header)

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.payload_offset + self.payload_bytes


class Damage(NamedTuple):
    """Bytes [start, end) of a segment that make no sound frame; `header` is there when at least the head was sound."""

    start: int
    end: int
    why: str
    header: bytes | None = None


def too_large(header: bytes, payload: bytes) -> str:
    """Why no frame can be made of this that could be read again; empty when one can."""
    sizes = (
        (len(payload), MAX_PAYLOAD_BYTES, "what is sent of it"),
        (len(header), MAX_HEADER_BYTES, "where it is from"),
    )
    for size, limit, what in sizes:
        if size > limit:
            return (
                f"one block is too large: {what} takes {size} bytes, at most {limit} can be kept: lower block.max_bytes"
            )
    return ""


def encode_head(kind: int, marker: bytes, header: bytes, payload: bytes) -> bytes:
    """Everything of a frame that comes before its payload."""
    prefix = _PREFIX.pack(_MAGIC, kind, marker, len(header), len(payload), zlib.crc32(payload), 0)
    head = prefix[:_HEAD_CRC_AT] + header
    return prefix[:_HEAD_CRC_AT] + struct.pack("<I", zlib.crc32(head)) + header


def read_frame(fd: int, offset: int, limit: int, marker: bytes) -> Frame | Damage:
    """The frame at an offset; Damage (of unknown extent: it ends at `limit`) when its head is not sound."""
    prefix = os.pread(fd, PREFIX_BYTES, offset)
    if len(prefix) < PREFIX_BYTES or offset + PREFIX_BYTES > limit:
        return Damage(offset, limit, "cut short in a frame's first bytes")
    magic, kind, found, header_bytes, payload_bytes, payload_crc, head_crc = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        if magic[:3] == _MAGIC[:3]:
            return Damage(offset, limit, f"written in version {magic[3]} of the format, this hostagent reads {VERSION}")
        return Damage(offset, limit, "no frame begins here")
    if found != marker or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        return Damage(offset, limit, "no frame begins here")
    if offset + PREFIX_BYTES + header_bytes > limit:
        return Damage(offset, limit, "cut short in a header")
    header = os.pread(fd, header_bytes, offset + PREFIX_BYTES)
    if zlib.crc32(prefix[:_HEAD_CRC_AT] + header) != head_crc:
        return Damage(offset, limit, "a header's checksum is wrong")
    frame = Frame(offset, kind, header, payload_bytes, payload_crc)
    if frame.end > limit:
        return Damage(offset, limit, "cut short in a payload", header)
    return frame


def read_payload(fd: int, frame: Frame) -> bytes | None:
    """The payload of a frame, None when its checksum is wrong."""
    payload = os.pread(fd, frame.payload_bytes, frame.payload_offset)
    if len(payload) != frame.payload_bytes or zlib.crc32(payload) != frame.payload_crc:
        return None
    return payload


def scan(fd: int, start: int, limit: int, marker: bytes, *, payloads: bool) -> Iterator[Frame | Damage]:
    """Every frame in [start, limit), with damage between them; with `payloads` their checksums are verified too."""
    offset = start
    while offset < limit:
        found = read_frame(fd, offset, limit, marker)
        if isinstance(found, Frame) and payloads and read_payload(fd, found) is None:
            found = Damage(found.offset, found.end, "a payload's checksum is wrong", found.header)
        if isinstance(found, Damage):
            found = found._replace(end=resync(fd, offset + 1, limit, marker))
            offset = found.end
        else:
            offset = found.end
        yield found


def resync(fd: int, start: int, limit: int, marker: bytes) -> int:
    """Where the next frame with a sound head begins at or after `start`; `limit` when there is none."""
    position = start + _MARKER_AT
    while position < limit:
        piece = os.pread(fd, min(_SEARCH_BYTES, limit - position), position)
        at = piece.find(marker)
        while at >= 0:
            candidate = position + at - _MARKER_AT
            if isinstance(read_frame(fd, candidate, limit, marker), Frame):
                return candidate
            at = piece.find(marker, at + 1)
        if len(piece) < MARKER_BYTES:
            break
        position += len(piece) - MARKER_BYTES + 1
    return limit
