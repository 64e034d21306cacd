"""The parts themselves, each as small as its protocol allows.

Together they read on in rotated files of inverted bytes, cut records at a mark, split them into two fields, write one
of them in capitals, and append plain lines to a file.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import msgspec

from hostagent.hookspecs import Content, Framed, Notice, Pattern
from hostagent.model import Batch, Delivery, Encoded, Scalar, Target, TargetChange, Verdict

INVERTED = bytes(range(255, -1, -1))


def rows_of(batch: Batch) -> list[tuple[bytes, ...]]:
    return list(zip(*[iter(batch.cells or [])] * len(batch.names), strict=True))


class NoOptions(msgspec.Struct, frozen=True):
    """For a part without options."""


class ListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Files to read, one by one."""

    files: tuple[str, ...]


class ListDiscovery:
    """Publishes one target and is done."""

    def __init__(self, options: ListOptions, source: str) -> None:
        self._target = Target(id=f"sample:{source}", source=source, paths=options.files, declaration="a list")

    def run(self, publish: Callable[[TargetChange], None], stop: threading.Event) -> None:
        publish(TargetChange("added", self._target))

    def notices(self) -> list[Notice]:
        return []


class InvertedContent:
    """Bytes stored as 255 minus themselves."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset).translate(INVERTED)

    def close(self) -> None:
        os.close(self.fd)


class InvertedTailer:
    """Knows such files by their name: a log that was turned upside down after rotation is read on where it was left."""

    def recognises(self, name: str, head: bytes) -> bool:
        return name.endswith(".inverted")

    def open(self, fd: int) -> Content:
        return InvertedContent(fd)


class EndedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The text that ends a record."""

    mark: Annotated[str, msgspec.Meta(min_length=1)] = ";"


class EndedFraming:
    """Records end with a mark instead of a newline."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        *whole, rest = data.split(self._mark)
        cells = list(whole)
        starts, at = [], 0
        for record in whole:
            starts.append(at)
            at += len(record) + len(self._mark)
        if rest and (final or len(rest) >= limit_bytes):
            cells.append(rest[:limit_bytes])
            starts.append(at)
            at += len(rest[:limit_bytes])
        batches = [Batch(rows=len(cells), constants=constants, names=("message",), cells=cells)] if cells else []
        return Framed(batches, at, starts)


class PairOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern with two groups, for the name and the value."""

    pattern: Pattern = r"(\w+)=(\w+)"

    def __post_init__(self) -> None:
        if re.compile(self.pattern).groups != 2:
            raise ValueError("pattern: expected exactly two groups")


class PairParser:
    """`name=value` becomes two fields."""

    def __init__(self, pattern: str) -> None:
        self._find = re.compile(pattern.encode()).search

    def parse(self, batch: Batch) -> tuple[list[Batch], int]:
        batches: list[Batch] = []
        unparsed = 0
        for row in rows_of(batch):
            found = self._find(row[-1])
            names, cells = (("name", "value"), found.groups()) if found else (batch.names, row)
            unparsed += found is None
            batches.append(Batch(rows=1, constants=batch.constants, names=names, cells=list(cells)))
        return batches, unparsed


class ShoutOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The field to write in capitals."""

    field: str = "message"


class ShoutProcessor:
    """Capitals."""

    def __init__(self, field: str) -> None:
        self._field = field

    def process(self, batch: Batch) -> list[Batch]:
        if self._field not in batch.names or batch.cells is None:
            return [batch]
        column = batch.names.index(self._field)
        cells = batch.cells.copy()
        cells[column :: len(batch.names)] = [value.upper() for value in cells[column :: len(batch.names)]]
        return [Batch(rows=batch.rows, constants=batch.constants, names=batch.names, cells=cells)]


class PlainEncoder:
    """One line per record: its columns, then its tags."""

    content_type = "text/plain"
    timed = False

    def encode(self, batch: Batch, observed_ns: int) -> Encoded:
        tags = b" ".join(f"{name}={value}".encode() for name, value in sorted(batch.constants.items()))
        lines = [b" ".join([*row, tags]) + b"\n" for row in rows_of(batch)]
        return Encoded(b"".join(lines), len(lines))

    def join(self, payloads: list[bytes]) -> bytes:
        return b"".join(payloads)

    def split(self, body: bytes) -> list[bytes]:
        return body.splitlines(keepends=True)


class AppendOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The file to append to. The class says what suits this output where a configuration leaves it open."""

    default_compression: ClassVar[str] = "none"
    default_encoding: ClassVar[str] = "sample-plain"

    path: str


class AppendOutput:
    """Appends every body to a file."""

    def __init__(self, options: AppendOptions) -> None:
        self._path = options.path

    def send(self, delivery: Delivery) -> Verdict:
        with open(self._path, "ab") as file:
            file.write(delivery.body)
        return Verdict()

    def close(self) -> None:
        """Nothing stays open."""
