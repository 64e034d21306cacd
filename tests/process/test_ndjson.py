"""The ndjson encoder: the same record has the same bytes, whichever of its three forms it comes in."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.model import Batch, Scalar, Text
from hostagent.process.ndjson import NdjsonEncoder
from hostagent.process.text import cells_of
from tests.process.reading import encoded

HOSTILE = [
    '"',
    "\\",
    '\\"',
    '","',
    "%",
    "%s",
    "{",
    "}",
    "\x7f",
    "^~`|\x7f",
    "\u2028",
    "\ufffd",
    "é",
    "🚀",
    "plain text",
    "\t",
    "\r",
    "",
]
piece = st.one_of(st.sampled_from(HOSTILE), st.characters(max_codepoint=0x20), st.text(max_size=5))
value = st.lists(piece, max_size=6).map("".join).map(lambda text: text.encode("utf-8", "replace"))
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5))
constants = st.dictionaries(st.sampled_from(["host", "path", "a%b", "c", 'q"', "^\x7f", ""]), scalars, max_size=4)


def text_of(names: tuple[str, ...], rows: list[tuple[bytes, ...]], seps: tuple[bytes, ...]) -> Batch:
    data = b"".join(value + sep for row in rows for value, sep in zip(row, seps, strict=True))
    return Batch(rows=-1, constants={}, text=Text(names, data, seps))


def by_orjson(names: tuple[str, ...], rows: list[tuple[bytes, ...]], fixed: dict[str, Scalar]) -> bytes:
    kept = {name: value for name, value in fixed.items() if name not in names}
    lines = []
    for row in rows:
        record: dict[str, Any] = kept | {name: value.decode() for name, value in zip(names, row, strict=True)}
        lines.append(orjson.dumps(record) + b"\n")
    return b"".join(lines)


@given(st.lists(value, max_size=8), constants, st.sampled_from([b"\n", b"\0", b"\t", b"\x7f", b"^", b"--end--"]))
def test_one_text_column_is_what_orjson_writes_per_record(
    values: list[bytes], fixed: dict[str, Scalar], sep: bytes
) -> None:
    rows: list[tuple[bytes, ...]] = [(value.replace(sep, b""),) for value in values]
    batch = text_of(("message",), rows, (sep,))
    batch.constants = fixed
    assert encoded([batch]) == by_orjson(("message",), rows, fixed)


@given(st.lists(st.tuples(value, value), max_size=8), constants, st.sampled_from(["time", "c", " stdout F "]))
def test_two_text_columns_are_what_orjson_writes_per_record(
    rows: list[tuple[bytes, ...]], fixed: dict[str, Scalar], first: str
) -> None:
    seps = (b" stdout F ", b"\n")
    rows = [(time.translate(None, b" \n"), message.replace(b"\n", b"")) for time, message in rows]
    batch = text_of((first, "message"), rows, seps)
    batch.constants = fixed | {"c": " stdout F "}
    assert encoded([batch]) == by_orjson((first, "message"), rows, fixed | {"c": " stdout F "})


@given(st.lists(st.tuples(value, value, value), max_size=8), constants)
def test_cells_and_records_are_what_orjson_writes_per_record(
    rows: list[tuple[bytes, ...]], fixed: dict[str, Scalar]
) -> None:
    names = ("a%b", "message", 'q"')
    expected = by_orjson(names, rows, fixed)
    assert encoded([Batch(rows=len(rows), constants=fixed, names=names, cells=cells_of(rows))]) == expected
    records = [{name: value.decode() for name, value in zip(names, row, strict=True)} for row in rows]
    assert encoded([Batch(rows=len(rows), constants=fixed, records=records)]) == expected


def test_escaped_text_is_passed_on_as_it_is() -> None:
    text = Text(("message", "time"), b'a\\n\\u003c"|"t1"\n"b"|"t2"\n"', (b'"|"', b'"\n"'), escaped=True)
    batch = Batch(rows=-1, constants={"n": 1}, text=text)
    assert encoded([batch]) == b'{"n":1,"message":"a\\n\\u003c","time":"t1"}\n{"n":1,"message":"b","time":"t2"}\n'


def test_a_columns_name_may_hold_the_separator_of_a_later_one() -> None:
    text = Text(("a", "x|y", "b"), b"1;2|3\n", (b";", b"|", b"\n"))
    assert encoded([Batch(rows=1, constants={}, text=text)]) == b'{"a":"1","x|y":"2","b":"3"}\n'


def test_a_column_takes_the_place_of_a_constant() -> None:
    fixed: dict[str, Scalar] = {"host": "h", "time": "constant", "message": "m"}
    text = Text(("time", "message"), b"t1 x\n", (b" ", b"\n"))
    expected = b'{"host":"h","time":"t1","message":"x"}\n'
    assert encoded([Batch(rows=1, constants=fixed, text=text)]) == expected
    assert encoded([Batch(rows=1, constants=fixed, names=("time", "message"), cells=[b"t1", b"x"])]) == expected
    assert encoded([Batch(rows=1, constants=fixed, records=[{"time": "t1", "message": "x"}])]) == expected


def test_names_of_files_that_are_no_utf8_are_shown_with_replacements() -> None:
    path = b"/var/log/\xff.log".decode("utf-8", "surrogateescape")
    batch = Batch(rows=1, constants={"path": path}, text=Text(("message",), b"x\n", (b"\n",)))
    assert encoded([batch]) == '{"path":"/var/log/\ufffd.log","message":"x"}\n'.encode()


def test_records_keep_every_json_type() -> None:
    record = {"n": 2**64, "f": 1.5, "none": None, "list": [1, {"a": "\x00"}], "yes": True}
    batch = Batch(rows=2, constants={}, records=[record, {}])
    expected = b'{"n":18446744073709551616,"f":1.5,"none":null,"list":[1,{"a":"\\u0000"}],"yes":true}\n{}\n'
    assert encoded([batch]) == expected


@pytest.mark.parametrize("size", [0, 1, 3])
def test_split_gives_back_what_join_was_given(size: int) -> None:
    encoder = NdjsonEncoder()
    payloads = [b'{"message":"%d"}\n' % index for index in range(size)]
    assert encoder.split(encoder.join(payloads)) == payloads
