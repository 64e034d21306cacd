"""Whatever stands in a configuration file, loading ends soon, with a Config or with mistakes that have a place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.config.load import load_config, read_part
from hostagent.config.nodes import MAX_PROBLEMS
from hostagent.errors import ConfigError, ConfigProblem
from tests.config.sample_parts import PARTS

GOOD = r"""
data_dir: TMP
sources:
  nginx: &n
    type: file
    include: [/x/*.log]
    multiline: {start: '^\d{4}-', flush_after: 1m30s, max_bytes: 64KiB}
    parse: {type: regex, pattern: '^(?P<ip>\S+) '}
    processors: [{type: drop, if: {field: level, any: [{field: x, matches: '^DEBUG$'}]}}]
    fields: {service: "${NAME:-x}", port: 80, canary: true, "z\u00e4": null}
    outputs: [main]
  pods: {type: containers, format: cri}
outputs:
  main: {type: http, url: "http://127.0.0.1:9880/", timeout: 500ms, block: {max_bytes: 2MiB}}
api: {listen: "127.0.0.1:9600"}
"""

KEYS = [
    "data_dir",
    "sources",
    "outputs",
    "type",
    "include",
    "main",
    "a",
    "multiline",
    "start",
    "<<",
    "processors",
    "if",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(KEYS))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
AS_IT_COMES = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def load(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "hostagent.yaml"
    path.write_bytes(data.replace(b"TMP", str(tmp_path).encode()))
    problems: list[ConfigProblem] | None = None
    try:
        load_config(path, PARTS, environment={"NAME": "value"})
    except ConfigError as error:
        problems = error.problems
    assert problems is None or 1 <= len(problems) <= MAX_PROBLEMS
    for problem in problems or []:
        assert problem.path == str(path)
        assert problem.message
        assert problem.line >= 0
        assert problem.column >= bool(problem.line)


def test_the_sample_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "hostagent.yaml"
    path.write_text(GOOD.replace("TMP", str(tmp_path)))
    assert load_config(path, PARTS, environment={}).sources.keys() == {"nginx", "pods"}


@given(at=st.integers(0, len(GOOD)), gone=st.integers(0, 30), new=st.binary(max_size=12))
@AS_IT_COMES
def test_a_damaged_file_is_no_crash(tmp_path: Path, at: int, gone: int, new: bytes) -> None:
    data = GOOD.encode()
    load(tmp_path, data[:at] + new + data[at + gone :])


@given(st.binary(max_size=200))
@AS_IT_COMES
def test_any_bytes_are_no_crash(tmp_path: Path, data: bytes) -> None:
    load(tmp_path, data)


@given(VALUES)
@AS_IT_COMES
def test_any_values_in_any_place_are_no_crash(tmp_path: Path, value: object) -> None:
    load(tmp_path, json.dumps({"outputs": {"main": {"type": "blackhole"}}, "sources": {"a": value}}).encode())
    load(tmp_path, json.dumps(value).encode())
    load(tmp_path, json.dumps({"outputs": {"main": {"type": "http", "url": value, "headers": value}}}).encode())


@given(VALUES)
@AS_IT_COMES
def test_any_declaration_is_no_crash(value: Any) -> None:  # noqa: ANN401 - any value a label can hold
    problems: list[ConfigProblem] = []
    for declared in (value, {"type": "drop", "if": value}):
        try:
            read_part("processor", declared, PARTS.processors, "pod x")
        except ConfigError as error:
            problems += error.problems
    assert {problem.path for problem in problems} <= {"pod x"}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 5000,
        "- " * 20_000 + "a",
        "? " * 20_000 + "a",
        "x: &a [*a]",
        "&a a: *a",
        "a: " + "x" * 3_000_000,
        "a: |\n" + " line\n" * 300_000,
        "x" * 5_000_000,
        "".join(f"k{n}: {{}}\n" for n in range(50_000)),
        "!!binary aGVsbG8=: x",
        "a: !!python/name:os.system x",
        "%YAML 9.9\n---\na: b",
        "a: \udcff",
        "\ufeffa: b",
        "a: 'x\0y'",
    ],
    ids=range(16),
)
def test_texts_made_to_harm_end_in_mistakes(tmp_path: Path, text: str) -> None:
    load(tmp_path, text.encode(errors="surrogateescape"))
