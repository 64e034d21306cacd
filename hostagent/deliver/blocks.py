"""Where parts become blocks: the reader's thread gathers them here, and a block leaves with its id.

Owns the id of a block and the rule when a block is full or due. It must not send, compress or wait; time is handed in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hostagent.digest import blake2b
from hostagent.model import Block, Part

# Part of every id: raised when the way from ranges to bytes changes, so that an upgrade can't send other bytes under an
# old id.
ENCODING_VERSION = b"hostagent-block-1"

_ID_BYTES = 16
_RANGE = struct.Struct(">QQQ")


def block_id(*, epoch: str, output: str, encoder_key: str, observed_ns: int, parts: Sequence[Part]) -> str:
    """A name for the bytes of a block: a hash over everything that decides them.

    `epoch` stands for one life of the checkpoint database: file numbers of another life name other files.
    """
    digest = _seed(epoch, output, encoder_key)
    _update(digest, observed_ns, parts)
    return digest.hexdigest()


def _seed(*names: str) -> blake2b:
    digest = blake2b(ENCODING_VERSION, digest_size=_ID_BYTES)
    for name in names:
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest


def _update(digest: blake2b, observed_ns: int, parts: Sequence[Part]) -> None:
    pieces = [observed_ns.to_bytes(12, "big", signed=True)]
    for part in parts:
        chain = part.chain.encode()
        pieces.append(len(chain).to_bytes(4, "big") + chain + len(part.ranges).to_bytes(4, "big"))
        for range_ in part.ranges:
            anchor = range_.anchor
            pieces.append(_RANGE.pack(range_.file, range_.start, range_.end) + bytes((len(anchor),)) + anchor)
    digest.update(b"".join(pieces))


class BlockBuilder:
    """The one block of an output that is open. A block is cut when it is full or has been open for `max_wait_s`.

    Its wall time is fixed when it is opened, since its records are encoded with it while the block still grows. That
    is also why a block is cut after the part that fills it, never before: the part already carries the block's time.
    """

    def __init__(self, *, output: str, epoch: str, encoder_key: str, max_bytes: int, max_wait_s: float) -> None:
        self._output = output
        self._seed = _seed(epoch, output, encoder_key)
        self._max_bytes = max_bytes
        self._max_wait_s = max_wait_s
        self._parts: list[Part] = []
        self._encoded_bytes = 0
        self._observed_ns: int | None = None
        self._due_s = 0.0

    @property
    def has_parts(self) -> bool:
        """Whether a cut would give a block."""
        return bool(self._parts)

    @property
    def encoded_bytes(self) -> int:
        """Payload gathered so far."""
        return self._encoded_bytes

    @property
    def observed_ns(self) -> int | None:
        """The open block's wall time, None while no block is open."""
        return self._observed_ns

    def open(self, observed_ns: int, now_s: float) -> int:
        """Open a block unless one is open; the wall time its records are to be encoded with."""
        if self._observed_ns is None:
            self._observed_ns = observed_ns
            self._due_s = now_s + self._max_wait_s
        return self._observed_ns

    def add(self, part: Part) -> Block | None:
        """Add a part encoded with this block's time; the block when this part fills it."""
        if self._observed_ns is None:
            raise ValueError(f"output {self._output}: a part was added to a block that is not open")
        self._parts.append(part)
        self._encoded_bytes += len(part.payload)
        return self.cut() if self._encoded_bytes >= self._max_bytes else None

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until the open block is due (0 when it is), None when none is open."""
        return None if self._observed_ns is None else max(0.0, self._due_s - now_s)

    def cut(self) -> Block | None:
        """Close the open block; None when nothing was added to it."""
        observed_ns, parts = self._observed_ns, tuple(self._parts)
        self._observed_ns = None
        self._parts = []
        self._encoded_bytes = 0
        if observed_ns is None or not parts:
            return None
        digest = self._seed.copy()
        _update(digest, observed_ns, parts)
        return Block(id=digest.hexdigest(), output=self._output, observed_ns=observed_ns, parts=parts)
