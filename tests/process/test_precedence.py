"""No container's line can say of itself what the runtime knows better."""

import json
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.config.load import load_config
from hostagent.hookspecs import Wiring
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.process.chain import Chain, build_chain
from tests.process.reading import objects

TAGS = {"container_id": "c", "host": "h", "k8s_pod_namespace": "own", "path": "/a.log"}


def chain(directory: Path, **options: object) -> Chain:
    parts = collect_parts(build_plugin_manager())
    source = {"type": "file", "include": ["/a.log"], **options}
    path = directory / "hostagent.yaml"
    path.write_text(
        json.dumps({"data_dir": str(directory), "sources": {"s": source}, "outputs": {"o": {"type": "blackhole"}}})
    )
    return build_chain(load_config(path, parts).sources["s"], parts, Wiring("s", Clock(), directory))


@pytest.mark.parametrize(
    "parse, line",
    [
        ({"type": "json"}, b'{"k8s_pod_namespace": "victim", "host": "victim", "level": "info", "team": "victim"}'),
        (
            {"type": "regex", "pattern": r"^(?P<k8s_pod_namespace>\w+) (?P<host>\w+) (?P<level>\w+) (?P<team>\w+)$"},
            b"victim victim info victim",
        ),
    ],
    ids=["json", "regex"],
)
def test_a_field_with_a_tag_s_name_is_kept_beside_it(tmp_path: Path, parse: dict[str, str], line: bytes) -> None:
    done = chain(tmp_path, parse=parse, fields={"team": "ours"}).process(line + b"\n" + line + b"\n", TAGS, final=True)
    expected = {
        **TAGS,
        "team": "ours",
        "level": "info",
        "parsed_k8s_pod_namespace": "victim",
        "parsed_host": "victim",
        "parsed_team": "victim",
    }
    assert objects(done.batches) == [expected, expected]


def test_a_name_that_is_taken_already_is_left_alone(tmp_path: Path) -> None:
    line = b'{"host": "a", "parsed_host": "b"}\n{"other": 1}\n'
    done = chain(tmp_path, parse={"type": "json"}).process(line, TAGS, final=True)
    assert objects(done.batches) == [
        {**TAGS, "parsed_host": "b", "parsed_parsed_host": "a"},
        {**TAGS, "other": 1},
    ]


def test_the_operator_s_processors_may_do_it(tmp_path: Path) -> None:
    processors = [{"type": "rename", "fields": {"parsed_host": "host"}}]
    done = chain(tmp_path, parse={"type": "json"}, processors=processors).process(b'{"host": "a"}\n', TAGS, final=True)
    assert objects(done.batches) == [{**TAGS, "host": "a"}]


def test_a_line_of_the_host_s_own_may_say_where_it_came_from(tmp_path: Path) -> None:
    done = chain(tmp_path, parse={"type": "json"}).process(b'{"host": "a"}\n', {"host": "h"}, final=True)
    assert objects(done.batches) == [{"host": "a"}]
