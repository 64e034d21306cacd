r"""Writing text as the inside of JSON strings, a whole buffer at a time.

The encoders' workhorse. Three facts make it fast: replacing an absent byte costs almost nothing; all that JSON strings
can't hold is the quote, the backslash and the 32 control bytes; and the length of what orjson makes of a whole chunk
tells whether any of them is left. The result is what orjson writes for each value on its own, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from hostagent.process.text import absent_byte

_QUOTING = ((b"\\", b"\\\\"), (b'"', b'\\"'))  # the backslash first: the quote's escape brings in new ones
_SHORT = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r"}
_CONTROL = {bytes([code]): _SHORT.get(code, b"\\u%04x" % code) for code in range(0x20)}
# Stack traces, Windows files, coloured output: frequent enough to be tried before asking what else there is.
_FREQUENT = (b"\n", b"\t", b"\r", b"\x1b")


def rewrite(data: bytes, seps: tuple[bytes, ...], fillings: tuple[bytes, ...]) -> tuple[bytes, int]:
    """Escape the values between the separators, put each separator's filling in its place, and count the rows.

    A separator is a single control byte or text without any; no filling holds a separator that comes after its own.
    """
    quoted = _replace(data, _QUOTING)
    if data.isascii():
        escaped = _replace(quoted, ((byte, _CONTROL[byte]) for byte in _FREQUENT if byte not in seps))
        filled, rows = fill(escaped, seps, fillings)
        left_alone = rows * sum(len(_CONTROL[sep]) - 1 for sep in seps if sep in _CONTROL)
        if len(orjson.dumps(data.decode())) == len('""') + len(escaped) + left_alone:
            return filled, rows
    return fill(_replace(quoted, ((byte, esc) for byte, esc in _CONTROL.items() if byte not in seps)), seps, fillings)


def fill(data: bytes, seps: tuple[bytes, ...], fillings: tuple[bytes, ...]) -> tuple[bytes, int]:
    """Put each separator's filling in its place; the number of rows shows in how much that added."""
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
    buffer, _ = rewrite(between.join(values) + between, (between,), (between,))
    return buffer[:-1].split(between)
