"""A plugin package, installed as pip would, is used through every hook without the agent knowing it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hostagent.hookspecs import Specs
from tests.support.packages import install_metadata

SAMPLE = Path(__file__).resolve().parents[1] / "sample_plugin"
HOOKS = {name for name in vars(Specs) if name.startswith("hostagent_")}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with the package and the metadata pip would make of its pyproject.toml."""
    project = tomllib.loads((SAMPLE / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    shutil.copytree(
        SAMPLE / "hostagent_sample", site / "hostagent_sample", ignore=shutil.ignore_patterns("__pycache__")
    )
    install_metadata(site, project["name"], project["entry-points"]["hostagent"], project["version"])
    return site


def call(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{os.getcwd()}:{site}"}
    command = [sys.executable, "-c", "from hostagent.cli import main; main(prog_name='hostagent')", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "hostagent.yaml"
    path.write_text(
        f"data_dir: {tmp_path}/state\n"
        "sources:\n"
        "  one:\n"
        "    type: sample-list\n"
        f"    files: [{tmp_path}/app.log]\n"
        "    format: {type: sample-ended, mark: ';'}\n"
        "    parse: sample-pair\n"
        "    processors: [{type: sample-shout, field: value}]\n"
        f"outputs: {{main: {{type: sample-append, path: {tmp_path}/out.txt}}}}\n"
    )
    return path


def test_its_parts_are_listed_with_its_name(site: Path) -> None:
    answer = json.loads(call(site, "plugins", "--json").stdout)
    ours = {(kind, name) for kind, names in answer["parts"].items() for name in names if name.startswith("sample-")}
    assert ours == {
        ("discoveries", "sample-list"),
        ("tailers", "sample-inverted"),
        ("framings", "sample-ended"),
        ("parsers", "sample-pair"),
        ("processors", "sample-shout"),
        ("encoders", "sample-plain"),
        ("outputs", "sample-append"),
    }
    assert answer["parts"]["outputs"]["sample-append"] == "hostagent-sample 0.1.0"


def test_lines_travel_through_its_parts_from_end_to_end(site: Path, config: Path, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"a=one;b=two;")
    run = call(site, "run", "--once", "-c", str(config))
    assert run.returncode == 0, run.stderr
    # Rotated while the agent was down, by somebody who turns bytes upside down: it is read on where it was left.
    (tmp_path / "app.log.inverted").write_bytes(bytes(255 - byte for byte in b"a=one;b=two;c=three;"))
    log.unlink()
    log.write_bytes(b"d=four;rest")
    run = call(site, "run", "--once", "-c", str(config))
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert sorted(line.split(" ")[:2] for line in lines) == [
        ["a", "ONE"], ["b", "TWO"], ["c", "THREE"], ["d", "FOUR"], ["rest", "host=" + socket.gethostname()]
    ]  # fmt: skip
    assert all(" sample_declared_in=a list" in line for line in lines)


def test_its_options_are_checked_like_ours(site: Path, config: Path) -> None:
    assert call(site, "check", "-c", str(config)).returncode == 0
    text = config.read_text()
    text = text.replace("mark: ';'", "marc: ';'").replace(
        "parse: sample-pair", "parse: {type: sample-pair, pattern: '(a'}"
    )
    config.write_text(text.replace("{type: sample-shout", "{type: sample-shut").replace("path:", "paht:"))
    run = call(site, "check", "-c", str(config))
    assert run.returncode == 2
    assert f"{config}:6:34: unknown option `marc`\n    hint: did you mean `mark`?" in run.stdout
    assert f"{config}:7:41: the pattern does not compile" in run.stdout
    assert f"{config}:8:25: unknown processor type `sample-shut`\n    hint: did you mean `sample-shout`?" in run.stdout
    assert ":9:17: `path` is missing" in run.stdout
    config.write_text(text.replace("'(a'", "'(a)'"))
    assert ":7:41: expected exactly two groups" in call(site, "check", "-c", str(config)).stdout


def test_its_command_is_one_of_ours(site: Path) -> None:
    assert call(site, "sample-greet", "you").stdout == "hello you\n"
    assert "  sample-greet " in call(site, "--help").stdout


def test_without_it_its_parts_are_unknown(config: Path, tmp_path: Path) -> None:
    run = call(tmp_path, "check", "-c", str(config))
    assert run.returncode == 2
    assert "unknown source type `sample-list`" in run.stdout


def test_one_that_does_not_load_is_told_and_ours_still_work(site: Path, config: Path) -> None:
    (site / "hostagent_sample" / "parts.py").write_text("import no_such_module_anywhere\n")
    run = call(site, "plugins")
    assert run.returncode == 1
    assert "sample (hostagent-sample 0.1.0) did not load: ModuleNotFoundError" in run.stdout
    assert "blackhole" in run.stdout
    run = call(site, "check", "-c", str(config))
    assert "sample (hostagent-sample 0.1.0) did not load: ModuleNotFoundError" in run.stdout


def test_every_hook_has_a_sample() -> None:
    text = (SAMPLE / "hostagent_sample" / "__init__.py").read_text()
    assert {hook for hook in HOOKS if f"def {hook}(" in text} == HOOKS
