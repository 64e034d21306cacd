"""Built-ins and packages announce their parts through the same hooks; a broken package stops nobody else."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostagent.errors import ConfigError
from hostagent.hookspecs import Specs
from hostagent.plugins import BUILTINS, HOOKS, build_plugin_manager, collect_parts
from tests.support.packages import install_module

Install = Callable[[str, str], None]

PLUGIN = """
import msgspec
from hostagent.hookspecs import Component, hookimpl

class Options(msgspec.Struct):
    {option}: str = ""

@hookimpl
def hostagent_register_outputs():
    return {{"{name}": Component(Options, lambda options, wiring: None)}}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a package and its metadata where the interpreter looks, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(name: str, code: str) -> None:
        install_module(tmp_path, name, code, version="1.5")
        importlib.invalidate_caches()

    yield installed
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_every_built_in_part_says_whose_it_is() -> None:
    parts = collect_parts(build_plugin_manager())
    assert not parts.broken
    for kind in HOOKS:
        assert set(parts.origins[kind].values()) <= {"hostagent"}
        assert set(parts.origins[kind]) == set(getattr(parts, kind))


def test_every_register_hook_is_asked() -> None:
    hooks = {name for name in vars(Specs) if name.startswith("hostagent_register_")}
    assert set(HOOKS.values()) == hooks - {"hostagent_register_commands"}
    assert all(name.startswith("hostagent.") and name.endswith(".builtin") for name in BUILTINS)


def test_a_packages_parts_are_found_and_named_after_it(install: Install) -> None:
    install("sample_one", PLUGIN.format(name="one", option="url"))
    parts = collect_parts(build_plugin_manager())
    assert parts.origins["outputs"]["one"] == "sample_one 1.5"
    assert parts.outputs["one"].options.__name__ == "Options"


def test_a_package_in_an_archive_is_found(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sample_zipped", PLUGIN.format(name="zipped", option="url"))
    archive = shutil.make_archive(str(tmp_path.with_name("archive")), "zip", tmp_path)
    monkeypatch.setattr(sys, "path", [archive, *sys.path[1:]])
    parts = collect_parts(build_plugin_manager())
    assert parts.origins["outputs"]["zipped"] == "sample_zipped 1.5"


def test_two_packages_with_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("sample_one", PLUGIN.format(name="one", option="url"))
    install("sample_two", PLUGIN.format(name="one", option="url"))
    with pytest.raises(ConfigError) as raised:
        collect_parts(build_plugin_manager())
    assert "sample_two 1.5 and sample_one 1.5 both announce `one` among outputs" in str(raised.value)


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        (PLUGIN.format(name="two", option="spool"), "an option spool that means something else already"),
        (PLUGIN.format(name="", option="url"), "is no name"),
        (PLUGIN.format(name="two", option="url").replace("register_outputs", "register_output"), "there is no hook"),
        (
            "from hostagent.hookspecs import hookimpl\n@hookimpl\ndef hostagent_register_outputs(): return {'a': 5}",
            "Component",
        ),
        (
            "from hostagent.hookspecs import hookimpl\n@hookimpl\ndef hostagent_register_outputs(): return 5",
            "TypeError",
        ),
    ],
)
def test_a_broken_package_is_reported_and_the_others_work(install: Install, code: str, reason: str) -> None:
    install("sample_broken", code)
    install("sample_one", PLUGIN.format(name="one", option="url"))
    parts = collect_parts(build_plugin_manager())
    assert "one" in parts.outputs
    (broken,) = parts.broken
    assert (broken.name, broken.package) == ("sample_broken", "sample_broken 1.5")
    assert reason in broken.reason
