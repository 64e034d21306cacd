"""The composition root: the stages are joined, started and stopped here, and nowhere else.

Read it to see how a line travels: discoveries publish targets to the reader; the reader feeds chains and fills lanes; a
lane's sender delivers blocks and moves positions in the checkpoint. The main thread keeps watch and does the upkeep.
"""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

from hostagent.clock import Clock
from hostagent.config.load import load_config
from hostagent.errors import EXIT_OK, ConfigError, StateError
from hostagent.hookspecs import Discovery, Notice
from hostagent.model import Block, TargetChange
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.feed import Feed
from hostagent.tail.identity import ignore_lease_signal
from hostagent.tail.known import KnownRows
from hostagent.tail.openfiles import OpenFiles
from hostagent.tail.reader import Reader
from hostagent.tail.registry import Registry
from hostagent.tail.resume import resume_inflight
from hostagent.tail.watcher import Watcher
from hostagent.wiring import Assembly, Callbacks

log = logging.getLogger(__name__)

LISTING_S = 10.0
"""How long the start waits for discoveries to list what is there before blocks in flight are cut again."""

UPKEEP_S = 1.0
FORGET_AFTER_NS = 48 * 3600 * 1_000_000_000
"""Rows of files that are gone are kept this long: a file may come back (unmounted disk, restored directory)."""


def run(config_path: Path, *, once: bool) -> int:
    """Run the agent in the foreground until a signal ends it, or, with `once`, until what is there is delivered."""
    plugins = build_plugin_manager()
    parts = collect_parts(plugins)
    config = load_config(config_path, parts)
    clock = Clock()
    daemon = Daemon(Assembly(config, plugins, parts, clock), clock)
    signal.signal(signal.SIGTERM, daemon.on_signal)
    signal.signal(signal.SIGINT, daemon.on_signal)
    return daemon.run(once=once)


class Daemon:
    """One running agent."""

    def __init__(self, assembly: Assembly, clock: Clock) -> None:
        self._assembly = assembly
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._listed: set[str] = set()
        self._declaration_notices: dict[str, Notice] = {}
        config = assembly.config
        ignore_lease_signal()
        self.checkpoint = Checkpoint.open(config.data_dir, clock)
        self.watcher = Watcher(clock)
        self.files = OpenFiles(assembly.tailers(), config.limits.max_open_files)
        self.registry = Registry(self.watcher, self.files, self.checkpoint, clock, config.limits.rescan_interval_s)
        self.feed = Feed(config.limits.chunk_bytes)
        assembly.build_lanes(self.checkpoint, Callbacks(self._on_room, self._on_acked))
        self.lanes = tuple(assembly.lanes.values())
        self.reader = Reader(self.registry, self.watcher, self.feed, self.lanes, clock)
        self.discoveries = {name: assembly.discovery(source) for name, source in config.sources.items()}
        self._known = KnownRows(self.checkpoint.files())

    def on_signal(self, number: int, _frame: object) -> None:
        """Stop, as the service manager or a person at the terminal asks."""
        self._stop.set()
        self._wake.set()
        self.reader.wake()

    def run(self, *, once: bool) -> int:
        """Start every stage, keep watch until the end, stop them in the order in which a line travels."""
        for lane in self.lanes:
            lane.start()
        threads = [self._start_discovery(name, discovery) for name, discovery in self.discoveries.items()]
        reader = threading.Thread(target=self._read, args=(once,), name="reader")
        reader.start()
        while reader.is_alive() and not self._stop.is_set():
            self._clock.wait(self._wake, UPKEEP_S)
            self._upkeep()
        self._stop.set()
        self.reader.wake()
        reader.join()
        deadline_s = self._clock.monotonic_s() + self._assembly.config.limits.stop_timeout_s
        for lane in self.lanes:
            lane.stop(deadline_s)
        for lane in self.lanes:
            lane.join(max(0.0, deadline_s - self._clock.monotonic_s()) + 1.0)
        for thread in threads:
            thread.join(1.0)
        self.watcher.close()
        self.checkpoint.close()
        return EXIT_OK

    # -- the reader's thread -------------------------------------------------------------------------------------

    def _read(self, once: bool) -> None:
        """Wait for the first listing, cut again what was in flight, then read."""
        until_s = self._clock.monotonic_s() + LISTING_S
        while self._listed < set(self.discoveries) and self._clock.monotonic_s() < until_s and not self._stop.is_set():
            self.reader.prepare()
        resume_inflight(self.registry, self.checkpoint, self.lanes)
        if once:
            self.reader.run_once(self._stop)
        else:
            self.reader.run(self._stop)
        self._wake.set()

    def _change(self, source: str, change: TargetChange) -> None:
        """Take a discovery's news into the registry."""
        target = change.target
        if target is None:
            self._listed.add(source)
            return
        if change.kind in ("removed", "changed"):
            self.registry.remove_place(target.id)
        if change.kind == "removed":
            return
        try:
            place = self._assembly.place(target)
        except ConfigError as error:
            self._declaration_notices[target.id] = Notice(target.id, str(error), "correct the declaration")
            log.warning("target %s is not collected: %s", target.id, error)
            return
        self._declaration_notices.pop(target.id, None)
        self.reader.open_target(place, self._known)

    # -- other threads -------------------------------------------------------------------------------------------

    def _start_discovery(self, name: str, discovery: Discovery) -> threading.Thread:
        def publish(change: TargetChange) -> None:
            self.reader.post(lambda: self._change(name, change))

        def find() -> None:
            discovery.run(publish, self._stop)
            publish(TargetChange("listed"))

        thread = threading.Thread(target=find, name=f"find:{name}", daemon=True)
        thread.start()
        return thread

    def _on_room(self) -> None:
        self.reader.wake()

    def _on_acked(self, block: Block) -> None:
        self.reader.note_acked(block)

    def _upkeep(self) -> None:
        """Now and then, in the main thread: let the checkpoint look after itself."""
        try:
            self.checkpoint.maintain()
        except StateError as error:
            log.warning("checkpoint: %s", error)
