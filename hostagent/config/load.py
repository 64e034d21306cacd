"""A configuration file and its conf.d to a checked Config, or to every mistake in them with file, line and column.

The last word before any line flows: what passes here can be started. Base options of sources and outputs are ours; all
other keys belong to the component named by `type`. It opens no log, no socket and no database, and writes nothing.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from hostagent.config.checks import check_data_dir, check_files
from hostagent.config.model import Config, OutputConfig, PartConfig, SourceConfig
from hostagent.config.nodes import ListNode, MapNode, Node, Place, Problems, ScalarNode, node_of, read_nodes
from hostagent.config.options import INVALID, options_of, read_option, read_struct
from hostagent.config.parts import Parts
from hostagent.config.words import describe, plain_value, unknown
from hostagent.errors import ConfigError, ConfigProblem
from hostagent.hookspecs import Component

Built = TypeVar("Built")
Verify = Callable[[Config], Iterable[ConfigProblem]]
Scan = Callable[[Iterable[str], Iterable[str]], Iterable[str]]

DEFAULT_DATA_DIR = Path("/var/lib/hostagent")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# Read with the parts at hand; every other option of a source or output is read by its type alone.
_PART_KEYS = {"name", "type", "options", "format", "parse", "processors", "encoding"}


def load_config(
    path: str | Path,
    parts: Parts,
    *,
    scan: Scan | None = None,
    verify: Verify | None = None,
    environment: Mapping[str, str] = os.environ,
    to_run: bool = True,
) -> Config:
    """Read and check everything; ConfigError holds all problems.

    `scan(include, exclude)` finds the files that exist now. `verify` adds what only the stages can find wrong: problems
    whose path is `source NAME` or `output NAME` and whose message may begin with `option: `; they get their line here.
    Without `to_run` nobody asks whether this user may use the directories that are named.
    """
    problems = Problems()
    loader = _Loader(str(path), parts, problems, to_run=to_run)
    for file in config_files(path):
        loader.take(read_nodes(file, environment, problems), file)
    config = loader.config(scan)
    if config is not None and verify is not None:
        loader.place(verify(config))
    if problems.found or config is None:
        raise ConfigError(problems.found)
    return config


def config_files(path: str | Path) -> list[str]:
    """The file, and those of `conf.d` beside it in the order of their names."""
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), "conf.d")
    try:
        names = [name for name in os.listdir(folder) if name.endswith((".yaml", ".yml", ".json")) and name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError:
        return [str(path), folder]  # whoever reads it says why it can't be: nothing in it may be left out silently
    return [str(path), *(os.path.join(folder, name) for name in sorted(names))]


def read_part(kind: str, value: object, components: Mapping[str, Component[Any]], where: str) -> PartConfig:
    """A part from a value that is no configuration file's, such as a container's declaration; ConfigError as above."""
    problems = Problems()
    part = _part(kind, node_of(value, Place(where)), components, problems)
    if part is None:
        raise ConfigError(problems.found)
    return part


def read_section(struct: type[msgspec.Struct], value: object, where: str) -> Any:  # noqa: ANN401 - a `struct`
    """A section such as MultilineConfig from a value that is no configuration file's; ConfigError as above."""
    problems = Problems()
    section = read_struct(struct, node_of(value, Place(where)), problems)
    if section is INVALID:
        raise ConfigError(problems.found)
    return section


class _Named(NamedTuple):
    """One source or output: where its name stands and what is beneath it."""

    place: Place
    node: Node


class _Loader:
    """Gathers the sections of all files, then builds the Config from them."""

    def __init__(self, path: str, parts: Parts, problems: Problems, *, to_run: bool) -> None:
        self._path = path
        self._to_run = to_run
        self._parts = parts
        self._problems = problems
        self._single: dict[str, _Named] = {}
        self._sources: dict[str, _Named] = {}
        self._outputs: dict[str, _Named] = {}

    def take(self, root: Node | None, file: str) -> None:
        """Add the sections of one file; a name that another file has already is a mistake in both."""
        if root is None or (isinstance(root, ScalarNode) and plain_value(root) is None):
            return
        if not isinstance(root, MapNode):
            hint = "begin with `sources:` and `outputs:`"
            self._problems.add(Place(file, 1, 1), f"expected a mapping, found {describe(root)}", hint)
            return
        known = {option.key for option in options_of(Config)}
        for key, (place, node) in root.items.items():
            if self._problems.full:
                return
            if key not in known:
                self._problems.add(place, f"unknown section `{key}`", unknown(key, known))
            elif key in ("sources", "outputs"):
                self._take_named(self._sources if key == "sources" else self._outputs, key, node)
            elif key in self._single:
                hint = "keep one of them"
                self._problems.add(place, f"`{key}` is given twice, first at {self._single[key].place}", hint)
            else:
                self._single[key] = _Named(place, node)

    def _take_named(self, known: dict[str, _Named], section: str, node: Node) -> None:
        if isinstance(node, ScalarNode) and plain_value(node) is None:
            return
        if not isinstance(node, MapNode):
            hint = f"under `{section}:` every entry is `name:` with its options beneath"
            self._problems.add(node.place, f"expected a mapping of names, found {describe(node)}", hint)
            return
        kind = section.removesuffix("s")
        for name, (place, beneath) in node.items.items():
            if not _NAME.fullmatch(name):
                hint = "letters, digits, `_`, `-` and `.`, at most 64, not beginning with `-` or `.`"
                self._problems.add(place, f"{name!r} can't be the name of a {kind}", hint)
            elif name in known:
                hint = "rename or remove one of them"
                self._problems.add(place, f"{kind} `{name}` is given twice, first at {known[name].place}", hint)
            else:
                known[name] = _Named(place, beneath)

    def config(self, scan: Scan | None) -> Config | None:
        """The Config, None when there was a problem that leaves none."""
        values: dict[str, Any] = {
            option.attribute: read_option(option, self._single[option.key].node, self._problems)
            for option in options_of(Config)
            if option.key in self._single
        }
        outputs = {name: self._output(name, named) for name, named in self._outputs.items()}
        sources = {name: self._source(name, named) for name, named in self._sources.items()}
        if not self._outputs and not self._problems.found:
            hint = "add `outputs: {main: {type: http, url: …}}`"
            self._problems.add(Place(self._path), "no output is configured: there is nowhere to send lines", hint)
        data_dir = values.setdefault("data_dir", DEFAULT_DATA_DIR)
        if isinstance(data_dir, Path):
            place = self._single["data_dir"].node.place if "data_dir" in self._single else Place(self._path)
            check_data_dir(data_dir, place, self._problems, to_run=self._to_run)
        ready = {name: source for name, source in sources.items() if source is not None}
        check_files(ready, self._include_places, scan, self._problems, to_run=self._to_run)
        if self._problems.found:
            return None
        return Config(**{**values, "sources": ready, "outputs": {k: v for k, v in outputs.items() if v is not None}})

    def place(self, found: Iterable[ConfigProblem]) -> None:
        """Take over problems that name a source or output, at the place of the option they mean."""
        for problem in found:
            kind, _, name = problem.path.partition(" ")
            named = {"source": self._sources, "output": self._outputs}.get(kind, {}).get(name)
            if named is None or not isinstance(named.node, MapNode):
                self._problems.add(Place(self._path), str(problem))
                continue
            option, _, rest = problem.message.partition(": ")
            here = option in named.node.items
            place = named.node.items[option][1].place if here else named.place
            self._problems.add(place, rest if here else problem.message, problem.hint)

    def _include_places(self, source: str) -> dict[str, Place]:
        """Where each include pattern of a source stands."""
        node = self._sources[source].node
        assert isinstance(node, MapNode)
        include = node.items["include"][1] if "include" in node.items else node
        items = include.items if isinstance(include, ListNode) else [include]
        return {item.text: item.place for item in items if isinstance(item, ScalarNode)}

    def _source(self, name: str, named: _Named) -> SourceConfig | None:
        values = self._named("source", named, SourceConfig, self._parts.discoveries)
        if values is None:
            return None
        assert isinstance(named.node, MapNode)
        items = named.node.items
        values["format"] = self._part_at(items, "format", "framing", self._parts.framings, default="raw")
        if "parse" in items and plain_value(items["parse"][1]) is not None:
            values["parse"] = self._part_at(items, "parse", "parser", self._parts.parsers)
        if "processors" in items:
            values["processors"] = self._processors(items["processors"][1])
        if "encoding" in items:
            values["encoding"] = self._charset(items["encoding"][1])
        values["outputs"] = self._chosen_outputs(items)
        if INVALID in values.values() or None in (values["format"], values.get("parse", ())):
            return None
        return SourceConfig(name=name, **values)

    def _output(self, name: str, named: _Named) -> OutputConfig | None:
        values = self._named("output", named, OutputConfig, self._parts.outputs)
        if values is None:
            return None
        assert isinstance(named.node, MapNode)
        own: str = getattr(self._parts.outputs[values["type"]].options, "default_encoding", "ndjson")
        encoders = self._parts.encoders
        values["encoding"] = self._part_at(named.node.items, "encoding", "encoding", encoders, default=own)
        level = values.get("compression_level")
        if isinstance(level, int) and level > 9 and values.get("compression") == "gzip":
            place = named.node.items["compression_level"][1].place
            self._problems.add(place, f"expected at most 9 with gzip, found the number {level}")
        if INVALID in values.values() or values["encoding"] is None:
            return None
        return OutputConfig(name=name, **values)

    def _named(
        self, kind: str, named: _Named, struct: type[msgspec.Struct], components: Mapping[str, Component[Built]]
    ) -> dict[str, Any] | None:
        """The base options of a source or output that need no part, and the options of its component."""
        if not isinstance(named.node, MapNode):
            hint = f"write `type: …` and the {kind}'s other options beneath its name"
            self._problems.add(named.node.place, f"expected a mapping, found {describe(named.node)}", hint)
            return None
        base = {option.key: option for option in options_of(struct) if option.key not in ("name", "options")}
        component = _component(kind, named.node, components, self._parts, self._problems)
        values: dict[str, Any] = {
            base[key].attribute: read_option(base[key], node, self._problems)
            for key, (_, node) in named.node.items.items()
            if key in base and key not in _PART_KEYS
        }
        if component is None:
            return None
        name, found = component
        values["type"] = name
        values["options"] = read_struct(found.options, named.node, self._problems, also=base.keys())
        return values

    def _part_at(
        self,
        items: Mapping[str, tuple[Place, Node]],
        key: str,
        kind: str,
        components: Mapping[str, Component[Built]],
        default: str = "",
    ) -> PartConfig | None:
        """The part an option names, or the default where the option is absent."""
        if key in items:
            return _part(kind, items[key][1], components, self._problems, self._parts)
        if default not in components:
            self._problems.add(Place(self._path), f"the {kind} `{default}` is not installed", "reinstall hostagent")
            return None
        return PartConfig(type=default, options=components[default].options())

    def _processors(self, node: Node) -> Any:  # noqa: ANN401 - a tuple of PartConfig, or INVALID
        items = node.items if isinstance(node, ListNode) else [node]
        found = [_part("processor", item, self._parts.processors, self._problems, self._parts) for item in items]
        return INVALID if None in found else tuple(found)

    def _charset(self, node: Node) -> Any:  # noqa: ANN401 - a codec's name, or INVALID
        name = plain_value(node)
        try:
            known = isinstance(name, str) and isinstance("x".encode(name), bytes)
        except (LookupError, ValueError):
            known = False
        if not known:
            hint = "for example utf-8, latin-1, cp1252, gb18030, shift_jis, utf-16-le"
            self._problems.add(node.place, f"expected the name of a character encoding, found {describe(node)}", hint)
            return INVALID
        return codecs.lookup(str(name)).name

    def _chosen_outputs(self, items: Mapping[str, tuple[Place, Node]]) -> Any:  # noqa: ANN401 - names, or INVALID
        if "outputs" not in items:
            return tuple(self._outputs)
        node = items["outputs"][1]
        chosen: list[str] = []
        for item in node.items if isinstance(node, ListNode) else [node]:
            name = plain_value(item)
            if not isinstance(name, str):
                self._problems.add(item.place, f"expected the name of an output, found {describe(item)}")
            elif name not in self._outputs:
                self._problems.add(item.place, f"there is no output `{name}`", unknown(name, self._outputs))
            elif name in chosen:
                self._problems.add(item.place, f"output `{name}` is listed twice")
            else:
                chosen.append(name)
        if not chosen and isinstance(node, ListNode) and not node.items:
            self._problems.add(node.place, "expected at least one output", "leave `outputs` out to use all of them")
        return tuple(chosen) if chosen else INVALID


def _part(
    kind: str,
    node: Node,
    components: Mapping[str, Component[Built]],
    problems: Problems,
    parts: Parts | None = None,
) -> PartConfig | None:
    """A framing, parser, processor or encoder: `{type: name, options…}`, or its name alone."""
    if isinstance(node, ScalarNode) and isinstance(plain_value(node), str):
        node = MapNode(node.place, {"type": (node.place, node)}, 2)
    if not isinstance(node, MapNode):
        hint = f"write `{{type: {next(iter(sorted(components)), 'name')}, …}}`"
        problems.add(node.place, f"expected a {kind}, found {describe(node)}", hint)
        return None
    found = _component(kind, node, components, parts or Parts(), problems)
    if found is None:
        return None
    name, component = found
    options = read_struct(component.options, node, problems, also=("type",))
    return None if options is INVALID else PartConfig(type=name, options=options)


def _component(
    kind: str, node: MapNode, components: Mapping[str, Component[Built]], parts: Parts, problems: Problems
) -> tuple[str, Component[Built]] | None:
    """The component a `type` names."""
    if "type" not in node.items:
        problems.add(node.place, f"`type` is missing: the kind of {kind}", f"known: {_listed(components)}")
        return None
    value = node.items["type"][1]
    name = plain_value(value)
    if isinstance(name, str) and name in components:
        return name, components[name]
    hint = unknown(name, components) if isinstance(name, str) else f"known: {_listed(components)}"
    if kind in ("framing", "parser", "processor") and isinstance(name, str) and (option := parts.option_for(name)):
        hint = f"`{name}` goes under `{option}`; known here: {_listed(components)}"
    broken = "".join(f"; the plugin {one.name} ({one.package}) did not load: {one.reason}" for one in parts.broken)
    found = f"unknown {kind} type `{name}`" if isinstance(name, str) else f"expected a name, found {describe(value)}"
    problems.add(value.place, found, hint + broken)
    return None


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
