"""The bytes of one open file at decoded offsets, whatever they are stored as: plain or gzip.

A content owns its descriptor from the moment it is made. It knows nothing of lines, positions or rotation, and its
memory is bounded however the bytes were compressed.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

GZIP_MAGIC = b"\x1f\x8b"

_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
_COMPRESSED_STEP_BYTES = 256 * 1024
_DECODED_STEP_BYTES = 1024 * 1024
_MARKS_KEPT = 32
_FIRST_SPACING_BYTES = 4 * 1024 * 1024


class FileContent:
    """A plain file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        os.close(self.fd)


class _Mark(NamedTuple):
    """A place decompression can go on from: ~40 KiB of state each, so their number is bounded."""

    decoded: int
    compressed: int
    inflate: zlib._Decompress


class GzipContent:
    """A gzip file, read at offsets of the decompressed bytes; several members in a row are one content.

    Going forward costs one pass. What the last read gave is kept, and state is marked on the way, so that stepping
    back (a line that had not ended; a second output further behind) does not start again from the first byte. A file
    that ends in the middle gives what there is, and goes on when it has grown. `fault` says why the content ends
    before the file does, empty while all is well; `complete` is true once the last member ended properly.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.fault = ""
        self.complete = False
        self._spacing = _FIRST_SPACING_BYTES
        self._marks = [_Mark(0, 0, zlib.decompressobj(_GZIP_WINDOW_BITS))]
        self._window = b""
        self._window_start = 0
        self._rewind(0)

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._window_start or offset > self._decoded:
            self._seek(offset)
        if offset > self._decoded:
            return b""
        pieces = [self._window[offset - self._window_start :]]
        have = len(pieces[0])
        while have < size and (data := self._next(size - have)):
            pieces.append(data)
            have += len(data)
        self._window, self._window_start = b"".join(pieces), offset
        return self._window[:size]

    def close(self) -> None:
        os.close(self.fd)
        self._marks.clear()
        self._window = b""

    def advance(self, offset: int, most: int) -> bool:
        """Decompress towards `offset`, at most about `most` bytes of it; whether a read there need not wait.

        For a thread that has other files to read while a position deep inside this one is reached.
        """
        if self._window_start <= offset <= self._decoded:
            return True
        nearest = max(mark.decoded for mark in self._marks if mark.decoded <= offset)
        start = self._decoded if nearest <= self._decoded <= offset else nearest
        goal = min(offset, start + most)
        self._seek(goal)
        return goal == offset or self._decoded < goal

    def _seek(self, offset: int) -> None:
        """Bring decompression to `offset`, from the nearest mark unless it is on the way already."""
        if offset < self._decoded:
            self._rewind(offset)
        while self._decoded < offset and self._next(min(offset - self._decoded, _DECODED_STEP_BYTES)):
            pass
        self._window, self._window_start = b"", self._decoded

    def _rewind(self, offset: int) -> None:
        mark = next(mark for mark in reversed(self._marks) if mark.decoded <= offset)
        self._decoded, self._compressed, self._fed = mark.decoded, mark.compressed, b""
        self._inflate = mark.inflate.copy()
        self._careful_bytes = _DECODED_STEP_BYTES
        self.fault = ""
        self.complete = False

    def _next(self, most: int) -> bytes:
        """Decompress at most `most` further bytes; empty at the end of what there is."""
        while not self.fault:
            if not self._fed:
                self._fed = self._more()
            if self._inflate.eof and not self._start_member():
                return b""
            ended = not self._fed
            if data := self._inflate_carefully(most):
                self._decoded += len(data)
                self._mark()
                return data
            if ended and not self._inflate.eof:
                return b""
        return b""

    def _more(self) -> bytes:
        data = os.pread(self.fd, _COMPRESSED_STEP_BYTES, self._compressed)
        self._compressed += len(data)
        return data

    def _inflate_carefully(self, most: int) -> bytes:
        """Decompress some of what is fed; at damage, everything up to it.

        zlib throws away what the failing call had already decoded, so that call is done again in smaller and smaller
        steps, on a copy of the state before it.
        """
        while True:
            step = self._careful_bytes
            piece, rest = self._fed[:step], self._fed[step:]
            trial = self._inflate.copy()
            try:
                data = trial.decompress(piece, min(most, step))
            except zlib.error as error:
                if step == 1:
                    self.fault = f"damaged gzip data before compressed byte {self._compressed}: {error}"
                    return b""
                self._careful_bytes = max(1, step // 64)
            else:
                self._inflate = trial
                self._fed = (trial.unused_data if trial.eof else trial.unconsumed_tail) + rest
                return data

    def _start_member(self) -> bool:
        """Begin the next member, if another one follows; zeros after the last one are padding."""
        self._fed = self._fed.lstrip(b"\0")
        while not self._fed:
            more = self._more()
            if not more:
                self.complete = True
                return False
            self._fed = more.lstrip(b"\0")
        if not GZIP_MAGIC.startswith(self._fed[:2]):
            self.fault = f"bytes that are not gzip after the last member, before compressed byte {self._compressed}"
            return False
        self._inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self.complete = False
        return True

    def _mark(self) -> None:
        if self._decoded < self._marks[-1].decoded + self._spacing:
            return
        self._marks.append(_Mark(self._decoded, self._compressed - len(self._fed), self._inflate.copy()))
        if len(self._marks) > _MARKS_KEPT:
            self._spacing *= 2
            self._marks = self._marks[::2]
