"""Building a chain from a source, and what its digest says."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostagent.clock import Clock
from hostagent.config.load import read_part, read_section
from hostagent.config.model import MultilineConfig, SourceConfig
from hostagent.errors import ConfigError
from hostagent.hookspecs import Wiring
from hostagent.model import Target
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.process.chain import Chain, build_chain
from tests.process.reading import CONSTANTS, bare, objects, whole

PARTS = collect_parts(build_plugin_manager())
WIRING = Wiring("app", Clock(), Path("/nonexistent"))


class NoOptions(msgspec.Struct, frozen=True):
    pass


def source(**options: Any) -> SourceConfig:  # noqa: ANN401 - YAML
    options.setdefault("format", "raw")
    read: dict[str, Any] = {"format": read_part("framing", options.pop("format"), PARTS.framings, "t")}
    if "parse" in options:
        read["parse"] = read_part("parser", options.pop("parse"), PARTS.parsers, "t")
    if "multiline" in options:
        read["multiline"] = read_section(MultilineConfig, options.pop("multiline"), "t")
    if "processors" in options:
        chosen = options.pop("processors")
        read["processors"] = tuple(read_part("processor", one, PARTS.processors, "t") for one in chosen)
    return SourceConfig(name="app", type="file", options=NoOptions(), **read, **options)


def chain(target: Target | None = None, **options: Any) -> Chain:  # noqa: ANN401 - YAML
    return build_chain(source(**options), PARTS, WIRING, target)


EVERYTHING: dict[str, Any] = {
    "format": "cri",
    "multiline": {"start": r"^\d", "flush_after": "3s"},
    "parse": {"type": "regex", "pattern": r"(?s)^(?P<n>\d+) (?P<text>.*)"},
    "processors": [
        {"type": "drop", "if": {"field": "n", "equals": "2"}},
        {"type": "mask", "pattern": "s.", "field": "text"},
    ],
    "fields": {"service": "web", "host": "from fields"},
}


def test_all_stages_work_one_after_the_other() -> None:
    lines = ["1 first", " second", "2 third", "oops", "3 last"]
    data = "".join(f"2024-05-01T10:00:00Z stdout F {line}\n" for line in lines).encode()
    done = whole(chain(**EVERYTHING), data)
    shared = {"path": CONSTANTS["path"], "host": "from fields", "service": "web"}
    shared |= {"time": "2024-05-01T10:00:00Z", "stream": "stdout"}
    assert objects(done.batches) == [
        shared | {"n": "1", "text": "fir****\n ****cond"},
        shared | {"n": "3", "text": "la****"},
    ]
    assert done.dropped == 1


@pytest.mark.parametrize("name", sorted(PARTS.framings))
def test_every_framing_can_be_built(name: str) -> None:
    assert chain(format=name).process(b"", CONSTANTS, final=True).consumed == 0


def test_a_chain_says_how_long_lines_may_wait() -> None:
    assert chain(format="raw").flush_after_s is None
    assert not chain(format="raw").joins_lines
    assert chain(**EVERYTHING).flush_after_s == 3.0
    assert chain(format="docker-json").joins_lines
    assert chain(format="docker-json").flush_after_s is not None


def test_whole_lines_are_those_of_the_files_own_encoding() -> None:
    assert chain().whole_lines(b"a\nb\nc") == 4
    assert chain(encoding="utf-16-le").whole_lines("a\nbc".encode("utf-16-le")) == 4


def test_a_target_can_declare_its_own_format() -> None:
    declared = Target(
        id="c1", source="app", paths=("/x",), format="docker-json", multiline={"start": "^A"}, parse={"type": "json"}
    )
    built = chain(declared)
    done = whole(built, b'{"log":"{\\"a\\":1}\\n","stream":"stdout","time":"2024-05-01T10:00:00Z"}\n')
    assert bare(done.batches) == [{"stream": "stdout", "time": "2024-05-01T10:00:00Z", "a": 1}]
    assert built.digest != chain().digest


@pytest.mark.parametrize(
    "wrong", [{"format": "nonesuch"}, {"multiline": {"start": "("}}, {"parse": {"type": "regex", "pattern": "x"}}]
)
def test_a_declaration_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    target = Target(id="c1", source="app", paths=("/x",), declaration="label aliyun.logs.x", **wrong)
    with pytest.raises(ConfigError, match=r"label aliyun\.logs\.x"):
        chain(target)


@pytest.mark.parametrize(
    "options,problem",
    [
        ({"encoding": "utf-7"}, "can't be read"),
        ({"encoding": "gbk", "format": "cri"}, "leave out `encoding`"),
        ({"multiline": {"start": "(?u)x"}}, "no regular expression"),
    ],
)
def test_what_cannot_be_built_says_which_source_it_is(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match="source app") as caught:
        chain(**options)
    assert problem in str(caught.value)


def test_the_digest_is_the_same_for_the_same_configuration() -> None:
    assert chain(**EVERYTHING).digest == chain(**EVERYTHING).digest
    assert chain(start_at="end").digest == chain(outputs=("other",)).digest
    patient: dict[str, Any] = {"multiline": {"start": "^A", "flush_after": "60s"}}
    assert chain(**patient).digest == chain(multiline={"start": "^A"}).digest


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "auto"},
        {"multiline": {"start": "^A"}},
        {"multiline": {"continue": "^A"}},
        {"parse": {"type": "json"}},
        {"parse": {"type": "json", "time_key": "t"}},
        {"processors": [{"type": "mask", "pattern": "a"}]},
        {"processors": [{"type": "mask", "pattern": "a", "with": "b"}]},
        {"fields": {"a": 1}},
        {"fields": {"a": "1"}},
        {"encoding": "latin-1", "format": "raw"},
        {"invalid_utf8": "base64"},
        {"max_line_bytes": 4096},
    ],
)
def test_the_digest_changes_with_whatever_shows_in_the_records(changed: dict[str, Any]) -> None:
    digests = {
        chain().digest,
        chain(**changed).digest,
        chain(**{**EVERYTHING, **changed}).digest,
        chain(**EVERYTHING).digest,
    }
    assert len(digests) == 4
