"""Turns a checked configuration into the objects the daemon joins: lanes, chains, discoveries, places.

Owns what is shared between targets (one chain per combination of options, one lane per output). It starts nothing: the
daemon does that, in its order.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.config.checks import exclude_of, include_of
from hostagent.config.load import load_config
from hostagent.config.model import Config, SourceConfig
from hostagent.config.parts import Parts
from hostagent.deliver.build import build_lane
from hostagent.deliver.credits import Credits
from hostagent.deliver.lane import Lane
from hostagent.errors import ConfigError, ConfigProblem
from hostagent.hookspecs import Discovery, Tailer, Wiring
from hostagent.model import Block, Scalar, Target
from hostagent.plugins import Plugins
from hostagent.process.chain import Chain, build_chain
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.dead_letters import DeadLetters
from hostagent.tail.finding.paths import compile_selection, scan
from hostagent.tail.finding.places import Place
from hostagent.tail.origin import Origin, Policy


class Callbacks(NamedTuple):
    """What a lane calls in its sender's thread."""

    on_room: Callable[[], None]
    on_acked: Callable[[Block], None]


def load_checked(path: str | Path, parts: Parts, *, to_run: bool = True) -> Config:
    """The configuration, checked as far as it can be without starting anything; ConfigError holds all problems.

    Beyond `load_config`: no existing file may have two sources, every source's chain must be possible, and none may
    read what an output writes. A command that only looks says so with `to_run`: its user need not be the agent's.
    """
    return load_config(
        path,
        parts,
        scan=_existing,
        verify=lambda config: [*_loops(config), *_impossible(config, parts)],
        to_run=to_run,
    )


def _loops(config: Config) -> Iterator[ConfigProblem]:
    """Sources that would read what the agent writes: every record would come back as a new line, without end."""
    written = {
        name: getattr(output.options, "path", "") for name, output in config.outputs.items() if output.type == "file"
    }
    own = [config.data_dir / name for name in ("checkpoint.db", "checkpoint.db-wal", "spool/main/000000000001.seg")]
    for number, (name, path) in enumerate(written.items()):
        if (other := next((one for one in list(written)[:number] if written[one] == path), None)) is not None:
            yield ConfigProblem(f"output {name}", 0, 0, f"path: output {other} writes {path}, too", "choose another")
    for name, source in config.sources.items():
        selection = compile_selection(include_of(source), exclude_of(source))
        if mine := next((str(path) for path in own if selection.matches(str(path))), None):
            hint = f"add '{config.data_dir}/**' to the source's `exclude`"
            yield ConfigProblem(f"source {name}", 0, 0, f"include: this matches {mine}, the agent's own state", hint)
        for output, path in written.items():
            if selection.matches(path):
                message = f"include: this matches {path}, which output {output} writes"
                hint = f"add {path!r} to the source's `exclude`, or write elsewhere"
                yield ConfigProblem(f"source {name}", 0, 0, message, hint)


def _impossible(config: Config, parts: Parts) -> Iterator[ConfigProblem]:
    """Options that are well by themselves and can't be together."""
    for name, source in config.sources.items():
        try:
            build_chain(source, parts, Wiring(name, Clock(), config.data_dir))
        except ConfigError as error:
            yield from error.problems
        except ValueError as error:
            yield ConfigProblem(f"source {name}", 0, 0, str(error))


def _existing(include: Iterable[str], exclude: Iterable[str]) -> Iterator[str]:
    return (found.path for found in scan("/", compile_selection(include, exclude)))


class Assembly:
    """Everything that is built from one configuration."""

    def __init__(self, config: Config, plugins: Plugins, parts: Parts, clock: Clock) -> None:
        self.config = config
        self.host = config.host or socket.gethostname()
        self._plugins = plugins
        self._parts = parts
        self._clock = clock
        self._chains: dict[bytes, Chain] = {}
        self.lanes: dict[str, Lane] = {}

    def wiring(self, name: str) -> Wiring:
        """What a part called `name` may use while it is built."""
        return Wiring(name, self._clock, self.config.data_dir)

    def build_lanes(self, checkpoint: Checkpoint, callbacks: Callbacks) -> None:
        """One lane per output, sharing the credits and the dead-letter store."""
        self.dead_letters = DeadLetters(self.config.data_dir, self._clock, checkpoint.add_losses)
        self._credits = Credits(self.config.limits.max_inflight_bytes, len(self.config.outputs))
        self._checkpoint = checkpoint
        self._callbacks = callbacks
        for name in self.config.outputs:
            self._build_lane(name)

    def adopt(self, config: Config, retired: Iterable[str]) -> None:
        """Go on with another configuration: retired lanes go, those of new and changed outputs are started."""
        self.config = config
        self._chains.clear()
        for name in retired:
            del self.lanes[name]
            self._credits.forget(name)
        self._credits.share(len(config.outputs))
        for name in config.outputs:
            if name not in self.lanes:
                self._build_lane(name).start()

    def _build_lane(self, name: str) -> Lane:
        self.dead_letters.bound(name, self.config.outputs[name].dead_letters.max_bytes)
        lane = build_lane(
            self.config.outputs[name],
            self._parts,
            self.wiring(name),
            checkpoint=self._checkpoint,
            dead_letters=self.dead_letters,
            credits=self._credits,
            on_room=self._callbacks.on_room,
            on_acked=self._callbacks.on_acked,
        )
        self.lanes[name] = lane
        return lane

    def discovery(self, source: SourceConfig) -> Discovery:
        """The discovery of a source."""
        return self._parts.discoveries[source.type].build(source.options, self.wiring(source.name))

    def tailers(self) -> dict[str, Tailer]:
        """One of each kind of tailer."""
        return {
            name: component.build(component.options(), self.wiring(name))
            for name, component in self._parts.tailers.items()
        }

    def place(self, target: Target) -> Place:
        """A target with its chain, lanes and constants; ConfigError says what its declaration has wrong."""
        source = self.config.sources[target.source]
        outputs = target.outputs if target.outputs is not None else source.outputs
        unknown = [name for name in outputs if name not in self.lanes]
        if unknown:
            where = target.declaration or f"target {target.id}"
            hint = f"outputs are {', '.join(self.lanes)}"
            raise ConfigError([ConfigProblem(where, 0, 0, f"there is no output `{unknown[0]}`", hint)])
        policy = Policy(
            target.start_at or source.start_at,
            source.flush_partial_after_s,
            source.close_grace_s,
            source.drop_page_cache,
        )
        described = self._described(target)
        lanes = tuple(self.lanes[name] for name in outputs)
        origin = Origin(described, self._chain(source, target), lanes, {"host": self.host}, policy)
        try:
            return Place(origin, compile_selection(target.paths, target.exclude))
        except ValueError as error:
            raise ConfigError([ConfigProblem(target.declaration or target.id, 0, 0, str(error))]) from error

    def _chain(self, source: SourceConfig, target: Target) -> Chain:
        key = msgspec.msgpack.encode((source.name, target.format, target.multiline, target.parse))
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = build_chain(source, self._parts, self.wiring(source.name), target)
        return chain

    def _described(self, target: Target) -> Target:
        """The target with the tags that plugins add; what it says itself stands."""
        added: dict[str, Scalar] = {}
        answers: list[Mapping[str, Scalar] | None] = self._plugins.hook.hostagent_describe_target(target=target)
        for answer in answers:
            added.update(answer or {})
        return msgspec.structs.replace(target, tags={**added, **target.tags}) if added else target
