"""Processors: what they do to a record depends on the record alone, not on the form its batch has."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.clock import Clock
from hostagent.config.load import read_part
from hostagent.errors import ConfigError
from hostagent.hookspecs import Processor, Wiring
from hostagent.model import Batch, Text
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.process.batches import row_count
from hostagent.process.text import cells_of
from tests.process.reading import encoded

PARTS = collect_parts(build_plugin_manager())
Record = dict[str, Any]
CONSTANTS = {"host": "h1", "env": "test"}
words = st.lists(st.sampled_from(["DEBUG", "é", " ", "4111111111111111", "\\", '"', "x"]), max_size=4).map("".join)
rows = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), words), min_size=1, max_size=6)


def processor(**options: Any) -> Processor:  # noqa: ANN401 - YAML
    part = read_part("processor", options, PARTS.processors, "test")
    return PARTS.processors[part.type].build(part.options, Wiring("test", Clock(), Path("/nonexistent")))


def forms(written: list[tuple[str, str]]) -> dict[str, Batch]:
    """The same records, with a stream beside the message, in every form."""
    pairs = [(stream.encode(), text.encode()) for stream, text in written]
    names = ("stream", "message")
    joined = b"".join(b"%b|F|%b\n" % pair for pair in pairs)
    inside = [(stream, orjson.dumps(text.decode())[1:-1]) for stream, text in pairs]
    escaped = b"".join(b"%b\x01%b\n" % pair for pair in inside)
    return {
        "text": Batch(rows=-1, constants=CONSTANTS, text=Text(names, joined, (b"|F|", b"\n"))),
        "escaped": Batch(rows=-1, constants=CONSTANTS, text=Text(names, escaped, (b"\x01", b"\n"), escaped=True)),
        "values": Batch(rows=len(pairs), constants=CONSTANTS, names=names, cells=cells_of(pairs)),
        "records": Batch(
            rows=len(pairs), constants=CONSTANTS, records=[{"stream": one, "message": text} for one, text in written]
        ),
    }


def after(one: Processor, batch: Batch) -> list[Record]:
    made = one.process(batch)
    records = [orjson.loads(line) for line in encoded(made).splitlines()]
    assert len(records) == sum(map(row_count, made))
    return records


def check(options: Record, written: list[tuple[str, str]], expected: Callable[[Record], Record | None]) -> None:
    one = processor(**options)
    whole = [CONSTANTS | {"stream": stream, "message": text} for stream, text in written]
    wanted = [made for record in whole if (made := expected(record)) is not None]
    for name, batch in forms(written).items():
        assert after(one, batch) == wanted, name
    lines = "".join(f"{text}\n" for _, text in written).encode()
    alone = Batch(rows=-1, constants=CONSTANTS, text=Text(("message",), lines, (b"\n",)))
    bare = [made for _, text in written if (made := expected(CONSTANTS | {"message": text})) is not None]
    assert after(one, alone) == bare


PATTERNS = ["DEBUG", "^é*$", "x$", r"\B", "(?P<a>4{1})1"]
conditions = st.one_of(
    st.builds(lambda p, n: {"field": "message", "matches": p, "negate": n}, st.sampled_from(PATTERNS), st.booleans()),
    st.builds(lambda f: {"field": f, "equals": "stdout"}, st.sampled_from(["stream", "message", "missing"])),
    st.builds(lambda m, n: {"field": "host", "matches": m, "negate": n}, st.sampled_from(["h1", "h2"]), st.booleans()),
)


def holds(condition: Record, record: Record) -> bool:
    value = record.get(condition["field"])
    if value is None:
        return bool(condition.get("negate", False))
    met = (
        re.search(condition["matches"], value, re.ASCII) is not None
        if "matches" in condition
        else value == condition["equals"]
    )
    return met != bool(condition.get("negate", False))


@given(st.sampled_from(["drop", "keep"]), conditions, rows)
def test_drop_and_keep_choose_records_by_a_field(kind: str, condition: Record, written: list[tuple[str, str]]) -> None:
    check(
        {"type": kind, "if": condition}, written, lambda one: one if holds(condition, one) == (kind == "keep") else None
    )


@given(
    st.sampled_from([r"\d{16}", "x*", "é", "^.", "(?P<a>D)EB"]), st.sampled_from(["****", "", "\\1\\g<0>", "é"]), rows
)
def test_mask_writes_over_what_a_pattern_finds(pattern: str, mask: str, written: list[tuple[str, str]]) -> None:
    def masked(record: Record) -> Record:
        return record | {"message": re.sub(pattern, lambda _: mask, record["message"], flags=re.ASCII)}

    check({"type": "mask", "pattern": pattern, "with": mask}, written, masked)


def test_mask_reaches_constants_and_other_columns() -> None:
    check(
        {"type": "mask", "pattern": r"\d", "with": "#", "field": "host"},
        [("stdout", "1")],
        lambda one: one | {"host": "h#"},
    )
    on_stream = {"type": "mask", "pattern": "out", "field": "stream"}
    check(on_stream, [("stdout", "1")], lambda one: one | ({"stream": "std****"} if "stream" in one else {}))


@given(rows)
def test_fields_are_added_removed_and_renamed(written: list[tuple[str, str]]) -> None:
    check(
        {"type": "add_fields", "fields": {"host": "h2", "n": 1, "message": "m"}},
        written,
        lambda one: one | {"host": "h2", "n": 1, "message": "m"},
    )
    check(
        {"type": "remove_fields", "fields": ["env", "message", "none"]},
        written,
        lambda one: {name: value for name, value in one.items() if name not in ("env", "message")},
    )
    names = {"host": "node", "message": "text", "missing": "env"}
    check(
        {"type": "rename", "fields": names},
        written,
        lambda one: {names.get(name, name): value for name, value in one.items()},
    )


def test_renaming_takes_the_place_of_a_field_that_is_there() -> None:
    def to_stream(record: Record) -> Record:
        return {name: value for name, value in record.items() if name != "message"} | {"stream": record["message"]}

    check({"type": "rename", "fields": {"message": "stream"}}, [("stdout", "a"), ("stderr", "b")], to_stream)

    def swapped(record: Record) -> Record:
        names = {"message": "stream", "stream": "message"}
        return {names.get(name, name): value for name, value in record.items()}

    check({"type": "rename", "fields": {"message": "stream", "stream": "message"}}, [("stdout", "a")], swapped)


def test_conditions_see_json_values_as_json_text() -> None:
    batch = Batch(rows=3, constants={}, records=[{"n": 1}, {"n": True}, {"n": None}])
    assert after(processor(type="keep", **{"if": {"field": "n", "equals": 1}}), batch) == [{"n": 1}]
    assert after(processor(type="keep", **{"if": {"field": "n", "matches": "^true$"}}), batch) == [{"n": True}]


@pytest.mark.parametrize(
    "options",
    [
        {"type": "drop", "if": {"field": "a"}},
        {"type": "drop", "if": {"field": "a", "matches": "x", "equals": "y"}},
        {"type": "drop", "if": {"field": "a", "matches": "("}},
        {"type": "mask", "pattern": "("},
        {"type": "mask", "pattern": "(?u)x"},
        {"type": "rename", "fields": {"a": "c", "b": "c"}},
        {"type": "drop"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: Record) -> None:
    with pytest.raises(ConfigError):
        processor(**options)


def test_a_processor_leaves_the_batch_it_was_given_alone() -> None:
    for batch in forms([("stdout", "a x"), ("stderr", "DEBUG")]).values():
        before = msgspec.json.encode(msgspec.to_builtins(batch))
        for options in (
            {"type": "drop", "if": {"field": "message", "matches": "DEBUG"}},
            {"type": "mask", "pattern": "a"},
            {"type": "rename", "fields": {"message": "stream"}},
            {"type": "add_fields", "fields": {"stream": 1}},
        ):
            processor(**options).process(batch)
        assert msgspec.json.encode(msgspec.to_builtins(batch)) == before
