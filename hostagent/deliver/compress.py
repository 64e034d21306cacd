"""Compression of a block's body, once, in the sender's thread: zstd and zlib release the GIL while they work.

Owns the compressor contexts, which are reused from block to block. It must not decide when or what to compress.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import zstandard

# docs/decisions/005-compression.md has the measurements behind these.
DEFAULT_ZSTD_LEVEL = 1
# Level 1 looks back 512 KiB by itself; a block is about 1 MiB, and seeing all of it costs nothing.
_ZSTD_WINDOW_LOG = 20
DEFAULT_GZIP_LEVEL = 1


class Compressor(Protocol):
    """Makes a body smaller; the same body always gives the same bytes."""

    name: str

    def compress(self, body: bytes) -> bytes:
        """Compress one body into a whole frame of its own."""


class ZstdCompressor:
    """One zstd frame per body, with its size in the header and without a checksum (TLS and the spool have theirs)."""

    name = "zstd"

    def __init__(self, level: int) -> None:
        own = zstandard.ZstdCompressionParameters.from_level(level)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            window_log=max(own.window_log, _ZSTD_WINDOW_LOG),
            write_checksum=False,
            write_content_size=True,
        )
        self._context = zstandard.ZstdCompressor(compression_params=parameters)

    def compress(self, body: bytes) -> bytes:
        return self._context.compress(body)


class GzipCompressor:
    """One gzip member per body; the header carries no time, so equal bodies give equal bytes."""

    name = "gzip"

    def __init__(self, level: int) -> None:
        self._level = min(level, 9)

    def compress(self, body: bytes) -> bytes:
        return zlib.compress(body, self._level, wbits=31)


class NoCompressor:
    """The body as it is."""

    name = "none"

    def compress(self, body: bytes) -> bytes:
        return body


def build_compressor(compression: str, level: int | None = None) -> Compressor:
    """Build the compressor an output's `compression` names; `level` None means the measured default."""
    if compression == "zstd":
        return ZstdCompressor(DEFAULT_ZSTD_LEVEL if level is None else level)
    if compression == "gzip":
        return GzipCompressor(DEFAULT_GZIP_LEVEL if level is None else level)
    if compression == "none":
        return NoCompressor()
    raise ValueError(f"unknown compression {compression!r}: use zstd, gzip or none")


def decompress(body: bytes, compression: str) -> bytes:
    """Undo `compress`, for the rare body that has to be taken apart again; it may be of an earlier configuration."""
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompress(body)
    return zlib.decompress(body, wbits=31) if compression == "gzip" else body
