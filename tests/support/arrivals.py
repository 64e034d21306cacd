"""The receiver's journal: what arrived, in the order in which it was stored.

An entry is one JSON line (key, path, encoding, size, time, what was made of it), then the body exactly as it came over
the wire, then a newline. The receiver appends; tests and oracles read it, also while it grows.
"""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import zstandard

STORED = "stored"
REPEATED = "repeated"  # a known key with the same bytes: answered as success, not stored again
VIOLATION = "violation"  # a known key with other bytes


class Entry(msgspec.Struct, frozen=True):
    """One request that reached the store."""

    key: str
    path: str
    encoding: str
    content_type: str
    size: int
    at_ns: int
    outcome: str


class Arrival(msgspec.Struct, frozen=True):
    """An entry with its body."""

    entry: Entry
    body: bytes

    def content(self) -> bytes:
        """The body, decompressed."""
        return decompress(self.body, self.entry.encoding)

    def records(self) -> Iterator[dict[str, Any]]:
        """The NDJSON records of the body."""
        for line in self.content().split(b"\n"):
            if line:
                yield orjson.loads(line)


def decompress(body: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as stream:
            return stream.read()
    if encoding == "gzip":
        return gzip.decompress(body)
    return body


_encode_entry = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Entry).decode


class JournalWriter:
    """Appends entries; the caller serialises."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, entry: Entry, body: bytes | bytearray | memoryview) -> None:
        head = _encode_entry(entry) + b"\n"
        expected = len(head) + len(body) + 1
        if os.writev(self._fd, [head, body, b"\n"]) != expected:
            raise OSError(f"the receiver's journal took only a part of {expected} bytes: is the disk full?")


class JournalReader:
    """Gives each entry once, also while the receiver is still appending."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[Arrival]:
        """Entries that were appended since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as journal:
            journal.seek(self._offset)
            while head := journal.readline():
                if not head.endswith(b"\n"):
                    return
                entry = _decode_entry(head)
                body = journal.read(entry.size + 1)
                if len(body) <= entry.size:
                    return
                self._offset += len(head) + len(body)
                yield Arrival(entry, body[:-1])
