"""Lines that can testify: each says which log and generation it belongs to, its number, its length and its own hash.

`stream generation seq written_ns sha text`. The text is cut from a fixed pool by the number, so a line can't be
mistaken for its neighbour; the hash covers everything else, so an altered byte shows.
"""

import hashlib
import random
from typing import NamedTuple

_POOL_BYTES = 1 << 16
_WORDS = [
    *("connection", "accepted", "upstream", "pool", "order", "placed", "session", "cart", "checkout", "payment"),
    *(
        "latency_ms=42",
        "status=200",
        "method=GET",
        "path=/api/v2/items",
        "cache=miss",
        "shard=7",
        "region=eu-central-1",
    ),
    *("stövnica", "übergrößen", "東京", "ñandú", '"quoted"', "back\\slash", "tab\there", "<angle>", "&", "'single'"),
]


def _make_pool() -> str:
    rng = random.Random(20260314)
    words: list[str] = []
    size = 0
    while size < _POOL_BYTES * 2:
        word = rng.choice(_WORDS)
        words.append(word)
        size += len(word) + 1
    return " ".join(words)[: _POOL_BYTES * 2]


_POOL = _make_pool()


class Line(NamedTuple):
    """A line as it was read back."""

    stream: str
    generation: int
    seq: int
    written_ns: int


class AlteredError(ValueError):
    """A message is not, byte for byte, a line that was written."""


def _digest(content: str) -> str:
    return hashlib.blake2s(content.encode(), digest_size=6).hexdigest()


def make_line(stream: str, generation: int, seq: int, written_ns: int = 0, text_length: int = 120) -> bytes:
    """One line with its newline. `text_length` counts characters."""
    start = seq * 7919 % _POOL_BYTES
    repeats = text_length // _POOL_BYTES
    text = _POOL[start : start + text_length] if not repeats else (_POOL[:_POOL_BYTES] * (repeats + 1))[:text_length]
    head = f"{stream} {generation} {seq} {written_ns}"
    return f"{head} {_digest(f'{head} {text}')} {text}\n".encode()


def read_line(message: str) -> Line:
    """The line a record's message is; AlteredError when it is none."""
    try:
        stream, generation, seq, written_ns, sha, text = message.split(" ", 5)
        head = f"{stream} {generation} {seq} {written_ns}"
        if sha == _digest(f"{head} {text}"):
            return Line(stream, int(generation), int(seq), int(written_ns))
    except ValueError:
        pass
    raise AlteredError(f"not a line that was written: {message[:200]!r}")
