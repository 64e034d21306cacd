r"""Writing text as the inside of JSON strings, a whole buffer at a time.

The encoders' workhorse. Plain ASCII goes through orjson as if it were one string, with bytes between the rows that JSON
leaves alone; other text is escaped by one replacement for each byte that JSON strings can't hold, since decoding it
would cost more. Both give what orjson makes of each value on its own, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from hostagent.process.text import PLAIN, absent_byte, absent_bytes

_QUOTING = ((b"\\", b"\\\\"), (b'"', b'\\"'))  # the backslash first: the quote's escape brings in new ones
_SHORT = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r"}
_CONTROL = {bytes([code]): _SHORT.get(code, b"\\u%04x" % code) for code in range(0x20)}


def rewrite(
    data: bytes, seps: tuple[bytes, ...], fillings: tuple[bytes, ...]
) -> tuple[bytes | memoryview[int], int] | None:
    """Escape the values between the separators, put each separator's filling in its place, and count the rows.

    A separator is a single control byte, or text that JSON leaves alone. None as for `fill`.
    """
    if data.isascii():
        spared = [sep for sep in seps if sep in _CONTROL]
        marks = absent_bytes(data, len(spared), PLAIN)
        if marks is not None:
            marked = dict(zip(spared, marks, strict=True))
            escaped = orjson.dumps(_replace(data, marked.items()).decode())
            filled = fill(escaped, tuple([marked.get(sep, sep) for sep in seps]), fillings)
            return (memoryview(filled[0])[1:-1], filled[1]) if filled is not None else None
    escapes = ((byte, escape) for byte, escape in _CONTROL.items() if byte not in seps)
    return fill(_replace(_replace(data, _QUOTING), escapes), seps, fillings)


def fill(data: bytes, seps: tuple[bytes, ...], fillings: tuple[bytes, ...]) -> tuple[bytes, int] | None:
    """Put each separator's filling in its place; the number of rows shows in how much that added.

    None when a separator would then also be found within the filling of one before it.
    """
    if any(sep in filling for index, sep in enumerate(seps) for filling in fillings[:index]):
        return None
    for sep, filling in zip(seps[:-1], fillings[:-1], strict=True):
        data = data.replace(sep, filling) if filling != sep else data
    filled = data.replace(seps[-1], fillings[-1])
    growth = len(fillings[-1]) - len(seps[-1])
    return filled, (len(filled) - len(data)) // growth if growth else data.count(seps[-1])


def _replace(data: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    for byte, escape in pairs:
        data = data.replace(byte, escape)
    return data


def escape_all(values: list[bytes]) -> list[bytes]:
    """Each value as the inside of a JSON string."""
    if not values:
        return []
    flat = b"".join(values)
    if flat.isascii() and len(orjson.dumps(flat.decode())) == len('""') + len(flat):
        return values
    between = absent_byte(flat)
    if between is None:
        return [orjson.dumps(value.decode())[1:-1] for value in values]
    rewritten = rewrite(between.join(values) + between, (between,), (between,))
    assert rewritten is not None, "one separator can't be in the way of another"
    return bytes(rewritten[0][:-1]).split(between)
