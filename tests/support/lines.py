"""Lines that can testify: each says which log and generation it belongs to, its number, its length and its own hash.

`stream generation seq written_ns sha text`. The text is cut from a fixed pool by the number, so a line can't be
mistaken for its neighbour; the hash covers everything else, so an altered byte shows.
"""

import hashlib
import random
from typing import NamedTuple

_POOL_BYTES = 1 << 16
_PLAIN_TEXT = (
    "connection accepted upstream pool order placed session cart checkout payment latency_ms=42 status=200 method=GET "
    "path=/api/v2/items cache=miss shard=7 region=eu-central-1"
)
_PLAIN_WORDS = _PLAIN_TEXT.split()
_HARD_WORDS = ["stövnica", "übergrößen", "東京", "ñandú", '"quoted"', "back\\slash", "tab\there", "<angle>", "'single'"]


def _make_pool(of: list[str]) -> str:
    rng = random.Random(20260314)
    words: list[str] = []
    size = 0
    while size < _POOL_BYTES * 2:
        word = rng.choice(of)
        words.append(word)
        size += len(word) + 1
    return " ".join(words)[: _POOL_BYTES * 2]


_POOL = _make_pool([*_PLAIN_WORDS, *_HARD_WORDS])
_PLAIN_POOL = _make_pool(_PLAIN_WORDS)


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


def make_line(
    stream: str, generation: int, seq: int, written_ns: int = 0, text_length: int = 120, *, plain: bool = False
) -> bytes:
    """One line with its newline. `text_length` counts characters; `plain` keeps to ASCII words."""
    pool = _PLAIN_POOL if plain else _POOL
    start = seq * 7919 % _POOL_BYTES
    repeats = text_length // _POOL_BYTES
    text = pool[start : start + text_length] if not repeats else (pool[:_POOL_BYTES] * (repeats + 1))[:text_length]
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
