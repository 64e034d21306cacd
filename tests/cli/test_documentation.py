"""Every command, option of a command and hook can be looked up."""

import re
from pathlib import Path

import click
import pytest

from hostagent.cli import COMMANDS, main
from hostagent.hookspecs import Specs

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = (DOCS.parent / "tests/sample_plugin/hostagent_sample/__init__.py").read_text()
HOOKS = [name for name in vars(Specs) if name.startswith("hostagent_")]


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", (DOCS / "cli.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section '## {name}'"
    return found[1]


def every_command() -> dict[str, click.Command]:
    """Full name → command, those inside groups included."""
    found = {}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        if isinstance(command, click.Group):
            found.update({f"{name} {inner}": one for inner, one in command.commands.items()})
        else:
            found[name] = command
    return found


@pytest.mark.parametrize("name", every_command())
def test_every_command_is_in_the_documentation_with_its_options(name: str) -> None:
    text = section(name.partition(" ")[0])
    assert f"`hostagent {name}" in text
    general = (DOCS / "cli.md").read_text().split("\n## ")[0]
    for parameter in every_command()[name].params:
        if isinstance(parameter, click.Option):
            spelt = parameter.opts[-1]
            assert f"`{spelt}" in text or f"[{spelt}" in text or f"`{spelt}" in general or f"{spelt} " in general, spelt


@pytest.mark.parametrize("name", every_command())
def test_every_command_that_answers_has_json(name: str) -> None:
    has_json = any("--json" in parameter.opts for parameter in every_command()[name].params)
    assert has_json is (name not in {"run", "tap"})


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_documentation_with_a_sample_that_exists(hook: str) -> None:
    page = (DOCS / "plugins.md").read_text()
    row = re.search(rf"^\| `{hook}` \| .+ \| `([a-z_-]+)` \|$", page, re.MULTILINE)
    assert row, f"docs/plugins.md has no row for {hook}"
    assert f'"{row[1]}"' in SAMPLE
