"""The house rules that a tool can check: who imports whom, and that every module says where it stands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hostagent"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_pb2" not in path.name)

# What a plugin may build on; everything else in the package may change without notice.
PLUGIN_API = {"hostagent.hookspecs", "hostagent.model", "hostagent.errors"}
PLUGIN_FILES = sorted(
    path
    for folder in (ROOT / "plugins", ROOT / "tests" / "sample_plugin")
    for path in folder.rglob("*.py")
    if "tests" not in path.relative_to(folder).parts
)

# Costly in memory, and needed only while their part is switched on.
OPTIONAL = ("docker", "grpc", "kubernetes", "bcc", "pyroute2", "google.protobuf")


def imported_names(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module == "hostagent":
                names |= {f"hostagent.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


def outside_the_plugin_api(source: str) -> set[str]:
    ours = {name for name in imported_names(source) if name.split(".")[0] == "hostagent"}
    return ours - PLUGIN_API


def test_the_import_contracts_hold() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_where_it_stands(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path.relative_to(ROOT)} opens without a docstring"
    assert len(docstring) >= 60, f"{path.relative_to(ROOT)}: one sentence more would help a newcomer"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_the_fields_terms(path: Path) -> None:
    vague = {"manager", "helper", "helpers", "util", "utils", "handler", "handlers"}
    assert not vague & set(path.relative_to(PACKAGE).with_suffix("").parts)


def test_plugins_import_only_the_plugin_api() -> None:
    reaching = {str(path.relative_to(ROOT)): outside_the_plugin_api(path.read_text()) for path in PLUGIN_FILES}
    assert {path: names for path, names in reaching.items() if names} == {}


def test_reaching_past_the_plugin_api_is_noticed() -> None:
    source = "from hostagent.tail.reader import Reader\nfrom hostagent import model, state\nimport json\n"
    assert outside_the_plugin_api(source) == {"hostagent.tail.reader", "hostagent.state"}


def test_optional_libraries_are_not_imported_with_the_agent() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (
            PACKAGE / "__init__.py",
            PACKAGE / "daemon/agent.py",
            PACKAGE / "plugins.py",
            PACKAGE / "cli/__init__.py",
        )
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {OPTIONAL!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def types_first_seen_by_a_thread(source: str) -> list[int]:
    """Lines inside functions that make msgspec look at a type: it crashes when two threads do that at once."""
    lines = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                typed = any(keyword.arg == "type" for keyword in node.keywords)
                if node.func.attr == "Decoder" or (node.func.attr == "decode" and typed):
                    lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_decoders_are_made_at_import(path: Path) -> None:
    """Those of the command line have a process of one thread."""
    if path.is_relative_to(PACKAGE / "cli"):
        return
    assert types_first_seen_by_a_thread(path.read_text()) == []


def test_a_decoder_made_in_a_function_is_noticed() -> None:
    assert types_first_seen_by_a_thread("def f(data):\n    return msgspec.json.decode(data, type=int)\n") == [2]
    assert types_first_seen_by_a_thread("def f():\n    return msgspec.json.Decoder(int)\n") == [2]
    assert types_first_seen_by_a_thread("_INT = msgspec.json.Decoder(int)\n") == []
