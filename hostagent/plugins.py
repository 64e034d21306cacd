"""Collects the parts: built-ins and plugin packages announce them through the same hooks.

Everything before the first line: it loads entry points, asks every plugin for its components and refuses a name that
two of them claim. A package that can't be loaded is reported and does not stop the others. Nothing is built here.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy

from hostagent import hookspecs
from hostagent.config.model import OutputConfig, SourceConfig
from hostagent.config.options import options_of
from hostagent.config.parts import BrokenPlugin, Parts
from hostagent.errors import ConfigError, ConfigProblem
from hostagent.hookspecs import Component

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OWN_PACKAGE = "hostagent"
BUILTINS = (
    "hostagent.discovery.builtin",
    "hostagent.tail.builtin",
    "hostagent.process.builtin",
    "hostagent.deliver.builtin",
)
# The hook that announces each kind of part; the names are the fields of Parts.
HOOKS = {
    "discoveries": "hostagent_register_discoveries",
    "tailers": "hostagent_register_tailers",
    "framings": "hostagent_register_framings",
    "parsers": "hostagent_register_parsers",
    "processors": "hostagent_register_processors",
    "encoders": "hostagent_register_encoders",
    "outputs": "hostagent_register_outputs",
}


class Plugins(pluggy.PluginManager):
    """The registered plugins, the package each came from, and those that could not be loaded."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs.Specs)
        self.packages: dict[str, str] = {}
        self.broken: list[BrokenPlugin] = []


def build_plugin_manager() -> Plugins:
    """Register the built-ins, then every entry point of the group `hostagent`."""
    plugins = Plugins()
    for name in BUILTINS:
        plugins.register(importlib.import_module(name), name=name)
        plugins.packages[name] = OWN_PACKAGE
    for entry in sorted(_entry_points(), key=lambda entry: entry.name):
        _register(plugins, entry)
    return plugins


def _entry_points() -> Iterable[EntryPoint]:
    """What installed packages announce. Most hosts have none, and are spared the 1.6 MB of what reads it properly."""
    if not any(map(_may_announce, sys.path)):
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=hookspecs.PROJECT)


def _may_announce(place: str) -> bool:
    """Whether a package in this place of the path has an entry point for us, or can't be asked in so simple a way."""
    try:
        names = os.listdir(place or os.curdir)
    except OSError:
        return os.path.isfile(place)  # an archive
    return any(
        name.endswith(".egg") or (name.endswith("-info") and _has_our_group(os.path.join(place, name)))
        for name in names
    )


def _has_our_group(info: str) -> bool:
    try:
        with open(os.path.join(info, "entry_points.txt"), "rb") as file:
            return f"[{hookspecs.PROJECT}]".encode() in file.read()
    except OSError:
        return False


def _register(plugins: Plugins, entry: EntryPoint) -> None:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.module
    try:
        plugin = entry.load()
        plugins.register(plugin, name=entry.name)
    except Exception as error:  # noqa: BLE001 - a stranger's code runs here; whatever it raises must not stop the others
        plugins.broken.append(BrokenPlugin(entry.name, package, f"{type(error).__name__}: {error}"))
        return
    unknown = _unknown_hooks(plugin)
    if unknown:
        plugins.unregister(plugin)
        known = ", ".join(sorted(name for name in vars(hookspecs.Specs) if name.startswith("hostagent_")))
        reason = f"there is no hook {', '.join(unknown)}; hooks are {known}"
        plugins.broken.append(BrokenPlugin(entry.name, package, reason))
        return
    plugins.packages[entry.name] = package


def _unknown_hooks(plugin: object) -> list[str]:
    names = [name for name in dir(plugin) if name.startswith("hostagent_")]
    return [name for name in names if callable(getattr(plugin, name)) and not hasattr(hookspecs.Specs, name)]


def collect_parts(plugins: Plugins) -> Parts:
    """Ask every plugin for its parts; ConfigError names both packages where two claim one name."""
    broken = list(plugins.broken)
    problems: list[ConfigProblem] = []
    found: dict[str, dict[str, Component[Any]]] = {kind: {} for kind in HOOKS}
    origins: dict[str, dict[str, str]] = {kind: {} for kind in HOOKS}
    for kind, hook in HOOKS.items():
        # Oldest registration first: a clash is then told as the newcomer's.
        for implementation in getattr(plugins.hook, hook).get_hookimpls():
            package = plugins.packages[implementation.plugin_name]
            try:
                announced = _checked(kind, implementation.function())
            except Exception as error:  # noqa: BLE001 - a stranger's code, as above
                reason = f"{hook}: {type(error).__name__}: {error}"
                broken.append(BrokenPlugin(implementation.plugin_name, package, reason))
                continue
            for name, component in announced.items():
                if name in found[kind]:
                    hint = "remove one of the two packages"
                    message = f"{package} and {origins[kind][name]} both announce `{name}` among {kind}"
                    problems.append(ConfigProblem(f"plugin {implementation.plugin_name}", 0, 0, message, hint))
                else:
                    found[kind][name] = component
                    origins[kind][name] = package
    if problems:
        raise ConfigError(problems)
    return Parts(
        **{kind: types.MappingProxyType(parts) for kind, parts in found.items()}, origins=origins, broken=tuple(broken)
    )


def add_commands(plugins: Plugins, group: Any) -> list[BrokenPlugin]:  # noqa: ANN401 - click stays out of this module
    """Let every plugin add its commands to the command line's group; returns the packages that could not be asked."""
    broken = list(plugins.broken)
    for implementation in plugins.hook.hostagent_register_commands.get_hookimpls():
        try:
            implementation.function(*[group for name in implementation.argnames if name == "group"])
        except Exception as error:  # noqa: BLE001 - a stranger's code, as above
            name = implementation.plugin_name
            reason = f"hostagent_register_commands: {type(error).__name__}: {error}"
            broken.append(BrokenPlugin(name, plugins.packages[name], reason))
    return broken


def _checked(kind: str, announced: Any) -> Mapping[str, Component[Any]]:  # noqa: ANN401 - whatever a stranger returned
    """What a hook returned, if it is what the hook's page says."""
    if not isinstance(announced, Mapping):
        raise TypeError(f"expected a mapping of name to Component, got {type(announced).__name__}")
    base = {"discoveries": SourceConfig, "outputs": OutputConfig}.get(kind)
    taken = {option.key for option in options_of(base)} - {"options"} if base is not None else {"type"}
    for name, component in announced.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"{name!r} is no name")
        if not isinstance(component, Component) or not issubclass(component.options, msgspec.Struct):
            raise TypeError(f"`{name}` must be a Component with a msgspec Struct as its options")
        clash = taken & {option.key for option in options_of(component.options)}
        if clash:
            raise TypeError(f"`{name}` has an option {', '.join(sorted(clash))} that means something else already")
    return announced
