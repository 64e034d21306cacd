"""The json parser: an object's fields take the place of the message, and everything else is left as it is."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.process.chain import Chain
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.raw import RawFraming
from hostagent.process.parse_json import JsonOptions, JsonParser
from tests.process.reading import assert_cuts_do_not_show, bare, whole

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=4))
fields = st.dictionaries(
    st.sampled_from(["a", "message", "time", "é"]), st.one_of(scalars, st.lists(scalars, max_size=2))
)
lines = st.lists(
    st.one_of(fields.map(orjson.dumps), st.sampled_from([b"", b"x", b"[1]", b'{"a":', b"{}1"])), max_size=8
)


def chain(**options: Any) -> Chain:  # noqa: ANN401 - JsonOptions
    return Chain(framing=RawFraming(), parser=JsonParser(JsonOptions(**options)))


def parsed(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"message": line.decode()}


@given(lines, st.lists(st.integers(0, 200), max_size=4))
def test_objects_become_fields_and_the_rest_keeps_its_message(written: list[bytes], at: list[int]) -> None:
    data = b"".join(line + b"\n" for line in written)
    done = whole(chain(), data)
    assert bare(done.batches) == [parsed(line) for line in written]
    assert done.unparsed == sum(
        parsed(line) == {"message": line.decode()} and b"message" not in line for line in written
    )
    assert_cuts_do_not_show(chain(), data, at)


def test_the_runtimes_columns_stay_unless_the_object_has_them() -> None:
    data = b'2024-05-01T10:00:00Z stdout F {"time":"t","a":1}\n2024-05-01T10:00:00Z stderr F no\n'
    done = whole(Chain(framing=CriFraming(), parser=JsonParser(JsonOptions())), data)
    assert bare(done.batches) == [
        {"stream": "stdout", "time": "t", "a": 1},
        {"time": "2024-05-01T10:00:00Z", "stream": "stderr", "message": "no"},
    ]


def test_a_field_can_be_the_time() -> None:
    done = whole(chain(time_key="ts"), b'{"ts":"t","a":1}\n{"a":2}\n')
    assert bare(done.batches) == [{"a": 1, "time": "t"}, {"a": 2}]


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "-9223372036854775809"])
def test_large_numbers_keep_all_their_digits(number: str) -> None:
    done = whole(chain(), f'{{"n":{number}}}\n'.encode())
    from tests.process.reading import encoded

    assert f'"n":{number}'.encode() in encoded(done.batches)


@pytest.mark.parametrize("depth", [50, 150, 5000, 100_000])
def test_deep_nesting_is_carried(depth: int) -> None:
    line = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    done = whole(chain(), line + b"\n")
    (record,) = bare(done.batches)
    assert record == (orjson.loads(line) if depth <= 50 else {"message": line.decode()})
