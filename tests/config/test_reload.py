"""A reload touches what changed in meaning and nothing else."""

from pathlib import Path

from hostagent.config.load import load_config
from hostagent.config.model import Config
from hostagent.config.reload import Difference, compare
from tests.config.sample_parts import PARTS


def config(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "hostagent.yaml"
    path.write_text(f"data_dir: {tmp_path}/state\n{text}")
    return load_config(path, PARTS)


OLD = """
outputs: {main: {type: blackhole}, spare: {type: http, url: "http://a"}}
sources:
  web: {type: containers, fields: {a: 1}}
  db: {type: containers, parse: {type: regex, pattern: a}, outputs: [main]}
"""


def test_the_same_meaning_in_other_words_is_no_change(tmp_path: Path) -> None:
    new = OLD.replace("{a: 1}", "{ 'a': 1 }").replace("outputs: [main]", "outputs: 'main'")
    assert not compare(config(tmp_path, OLD), config(tmp_path, new))


def test_each_change_is_told_by_name(tmp_path: Path) -> None:
    new = OLD.replace("pattern: a", "pattern: b").replace("  web:", "  shop:").replace("http://a", "http://b")
    reload = compare(config(tmp_path, OLD), config(tmp_path, new + "host: h\n"))
    assert reload.sources == Difference(added=("shop",), removed=("web",), changed=("db",))
    assert reload.outputs == Difference(changed=("spare",))
    assert reload.restart == ("host",)


def test_a_new_output_changes_the_sources_that_use_all_of_them(tmp_path: Path) -> None:
    new = OLD.replace("outputs: {", "outputs: {more: {type: blackhole}, ")
    reload = compare(config(tmp_path, OLD), config(tmp_path, new))
    assert reload.outputs == Difference(added=("more",))
    assert reload.sources == Difference(changed=("web",))
