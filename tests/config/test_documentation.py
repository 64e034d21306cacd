"""Every option can be looked up: docs/configuration.md has its name, type with unit, and default."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from hostagent.config.model import (
    ApiConfig,
    BlockConfig,
    Config,
    DeadLettersConfig,
    LimitsConfig,
    LogConfig,
    MultilineConfig,
    OutputConfig,
    SourceConfig,
    SpoolConfig,
)
from hostagent.config.options import Option, options_of
from hostagent.config.units import format_size
from hostagent.plugins import HOOKS, build_plugin_manager, collect_parts
from hostagent.process.processors.condition import ConditionOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "The file": Config,
    "api": ApiConfig,
    "limits": LimitsConfig,
    "log": LogConfig,
    "Sources": SourceConfig,
    "multiline": MultilineConfig,
    "condition": ConditionOptions,
    "Outputs": OutputConfig,
    "block": BlockConfig,
    "spool": SpoolConfig,
    "dead_letters": DeadLettersConfig,
}
ONE = {
    "discoveries": "source",
    "tailers": "tailer",
    "framings": "format",
    "parsers": "parser",
    "processors": "processor",
    "encoders": "encoding",
    "outputs": "output",
}
# The loader's defaults, where the Struct itself has none.
LOADED = {
    (Config, "data_dir"): "`/var/lib/hostagent`",
    (Config, "sources"): "none",
    (SourceConfig, "format"): "`raw`",
    (OutputConfig, "encoding"): "`ndjson`",
}
# Filled in by the loader and not written by a user.
OURS = {"name", "options"}


def type_of(kind: inspect.Type, unit: str = "") -> str:  # noqa: PLR0911 - one line per kind of type
    """An option's type as the documentation calls it."""
    if isinstance(kind, inspect.Metadata):
        is_pattern = (kind.extra_json_schema or {}).get("format") == "regex"
        return "pattern" if is_pattern else type_of(kind.type, unit)
    if isinstance(kind, inspect.UnionType):
        words = dict.fromkeys(type_of(one, unit) for one in kind.types if not isinstance(one, inspect.NoneType))
        return "scalar" if len(words) > 2 else " or ".join(words)
    if unit in ("duration", "size"):
        return unit
    if unit == "file" and isinstance(kind, inspect.StrType):
        return "path of a file"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, (inspect.ListType, inspect.VarTupleType)):
        return f"list of {type_of(kind.item_type)}s"
    if isinstance(kind, inspect.DictType):
        return f"mapping of {type_of(kind.value_type)}s"
    if isinstance(kind, inspect.StructType):
        return "part" if kind.cls.__name__ == "PartConfig" else "mapping"
    if isinstance(kind, inspect.CustomType):
        return "path"
    simple = {inspect.StrType: "string", inspect.BoolType: "true/false", inspect.IntType: "number"}
    return simple.get(type(kind), "number" if isinstance(kind, inspect.FloatType) else "any value")


def default_of(struct: type[msgspec.Struct], option: Option) -> str:
    """An option's default as the documentation writes it."""
    field = next(field for field in msgspec.structs.fields(struct) if field.name == option.attribute)
    if (struct, option.key) in LOADED:
        return LOADED[struct, option.key]
    if option.required:
        return "required"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if option.unit == "size" and value is not None:
        return format_size(value).replace(".0 ", "").replace(" ", "")
    if option.unit == "duration" and value is not None:
        return f"{value:g}s"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value in ("", (), {}, []) or isinstance(value, msgspec.Struct):
        return "none"
    return f"`{value[0]}`" if isinstance(value, tuple) else f"`{value}`"


def rows_under(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading: option → cells."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"docs/configuration.md has no heading {heading!r}"
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|(.*)\|$", found[1], re.MULTILINE)
    return {key: [cell.strip() for cell in rest.split("|")] for key, rest in rows}


def check(heading: str, struct: type[msgspec.Struct]) -> None:
    rows = rows_under(heading)
    options = {option.key: option for option in options_of(struct) if option.key not in OURS}
    assert set(rows) == set(options), f"under {heading!r}"
    for key, option in options.items():
        kind, default, meaning = rows[key]
        assert kind == type_of(option.type, option.unit), f"{heading}: type of {key}"
        assert default == default_of(struct, option), f"{heading}: default of {key}"
        assert len(meaning) > 10, f"{heading}: meaning of {key}"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_option_is_in_the_documentation_with_type_and_default(heading: str) -> None:
    check(heading, SECTIONS[heading])


@pytest.mark.parametrize("kind", HOOKS)
def test_every_part_is_in_the_documentation_with_its_options(kind: str) -> None:
    for name, component in getattr(collect_parts(build_plugin_manager()), kind).items():
        if options_of(component.options):
            check(f"{name} ({ONE[kind]})", component.options)
        else:
            assert re.search(rf"^(\| `{name}` \||#+ {name} \({ONE[kind]}\)$)", PAGE.read_text(), re.MULTILINE), (
                f"docs/configuration.md has neither a row `{name}` nor a heading '{name} ({ONE[kind]})'"
            )
