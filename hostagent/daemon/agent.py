"""The composition root: the stages are joined, started and stopped here, and nowhere else.

Read it to see how a line travels: discoveries publish targets to the reader; the reader feeds chains and fills lanes; a
lane's sender delivers blocks and moves positions in the checkpoint. The main thread keeps watch and does the upkeep.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from hostagent import __version__
from hostagent.clock import Clock
from hostagent.config.checks import config_notices
from hostagent.config.listen import parse_listen
from hostagent.config.parts import Parts
from hostagent.daemon.events import Events
from hostagent.daemon.finding import Finding
from hostagent.daemon.leftovers import Leftovers
from hostagent.daemon.memory import Memory, made_to_stay
from hostagent.daemon.network import NetworkWatch
from hostagent.daemon.reloading import Reloading
from hostagent.daemon.reports import Reports
from hostagent.daemon.requests import Requests
from hostagent.daemon.signals import Signals
from hostagent.daemon.wiring import Assembly, Callbacks, load_checked
from hostagent.deliver.lane import Lane
from hostagent.errors import EXIT_FAILURE, EXIT_OK, StateError
from hostagent.hookspecs import Notice
from hostagent.model import Block
from hostagent.observe.api import Api
from hostagent.observe.health import READER_LIMIT_S, STOPPING, Health
from hostagent.observe.log import start_logging
from hostagent.observe.notify import Notifier
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.cutting import Cutter
from hostagent.tail.feed import Feed
from hostagent.tail.files.closed import ClosedFiles
from hostagent.tail.files.identity import ignore_lease_signal
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Places
from hostagent.tail.reader import Reader
from hostagent.tail.recut import Reclaiming
from hostagent.tail.watching.watcher import Watcher

log = logging.getLogger(__name__)

LISTING_S = 10.0
"""How long the start waits for discoveries to list what is there before blocks in flight are cut again."""

WATCH_S = 2.0
UPKEEP_S = 30.0
FORGET_AFTER_NS = 48 * 3600 * 1_000_000_000
"""Rows of files that are gone are kept this long: a file may come back (unmounted disk, restored directory)."""


def run(config_path: Path, signals: Signals, *, once: bool) -> int:
    """Run the agent in the foreground until a signal ends it, or, with `once`, until what is there is delivered."""
    with made_to_stay():
        plugins = build_plugin_manager()
        parts = collect_parts(plugins)
        config = load_checked(config_path, parts)
        start_logging(config.log)
        clock = Clock()
        daemon = Daemon(Assembly(config, plugins, parts, clock), config_path.absolute(), parts, clock, signals)
    return daemon.run(once=once)


class Daemon:
    """One running agent."""

    def __init__(self, assembly: Assembly, config_path: Path, parts: Parts, clock: Clock, signals: Signals) -> None:
        self._assembly = assembly
        self._clock = clock
        self._stop = signals.stop
        self._wake = signals.wake
        self._reload_asked = signals.reload
        self._failure = ""
        self._memory = Memory()
        signals.begin()  # its thread is the first; one begun before would have kept an arena of its own
        self._upkeep_at_s = 0.0
        config = assembly.config
        self._data_dir = config.data_dir
        ignore_lease_signal()
        self.checkpoint = Checkpoint.open(config.data_dir, clock)
        self._leftovers = Leftovers(config.data_dir)
        self._events = Events(self.checkpoint, self._events_of_state)
        self.checkpoint.on_urgent = self._wake.set
        # Before the files' rows are read: what an earlier run had put into a spool moves positions forward.
        assembly.build_lanes(self.checkpoint, Callbacks(self._on_room, self._on_acked))
        watcher = self._watcher = Watcher(clock)
        open_files = OpenFiles(assembly.tailers(), config.limits.max_open_files)
        known = KnownRows(self.checkpoint.files(), self.checkpoint.furthest_in_flight())
        self.registry = Registry(open_files, self.checkpoint, known, clock)
        places = Places(watcher)
        cutter = Cutter(self.registry, ClosedFiles(open_files, self.checkpoint, places), clock)
        feed = Feed(config.limits.chunk_bytes)
        self.reader = Reader(
            registry=self.registry,
            places=places,
            watcher=watcher,
            feed=feed,
            lanes=self._lanes(),
            clock=clock,
            rescan_interval_s=config.limits.rescan_interval_s,
            max_deleted_bytes=config.limits.max_deleted_bytes,
            reclaiming=Reclaiming(cutter, self.checkpoint, clock, self._all_listed),
        )
        self.finding = Finding(self.reader, clock)
        self.reloading = Reloading(
            path=config_path,
            parts=parts,
            assembly=assembly,
            finding=self.finding,
            reader=self.reader,
            checkpoint=self.checkpoint,
            clock=clock,
        )
        self.requests = Requests(config.data_dir, assembly.dead_letters, lambda: assembly.lanes)
        self.health = self._checks()
        self.notifier = Notifier(clock)
        self.network = NetworkWatch(self._try_now, clock)
        self.api = self._build_api(config_path, places, feed)

    def run(self, *, once: bool) -> int:
        """Start every stage, keep watch until the end, stop them in the order in which a line travels."""
        if not once:
            self.api.start()
        for lane in self._lanes():
            lane.start()
        for source in self._assembly.config.sources:
            self.finding.begin(self._assembly, source)
        reader = threading.Thread(target=self._read, args=(once,), name="reader")
        reader.start()
        self.network.start()
        try:
            self._keep_watch(reader)
        except Exception as error:  # a thread's top: the others are stopped in order, and what is cut is delivered
            self._failure = f"{type(error).__name__}: {error}"
            log.exception("unexpected error in the main thread; the agent ends, a restart goes on where it was")
        self._end(reader)
        if self._failure:
            log.error("the agent failed: %s", self._failure)
            return EXIT_FAILURE
        return EXIT_OK

    def _keep_watch(self, reader: threading.Thread) -> None:
        while reader.is_alive() and not self._stop.is_set():
            self._clock.wait(self._wake, min(WATCH_S, self.notifier.watchdog_interval_s or WATCH_S))
            if not self._stop.is_set():
                self._wake.clear()
                self._watch()
            if all(lane.gone for lane in self._lanes()):
                self._stop.set()  # `hostagent run | head`: whoever wanted the records has left

    def _end(self, reader: threading.Thread) -> None:
        """Stop reading, deliver what is cut as far as the time allows, close; the rest goes on at the next start."""
        limit_s = self._assembly.config.limits.stop_timeout_s
        self.health.set_ready(STOPPING)
        self.notifier.stopping("delivering what was read")
        self.notifier.extend_timeout(limit_s + 5)
        self._stop.set()
        self.reader.wake()
        reader.join()
        deadline_s = self._clock.monotonic_s() + limit_s
        for lane in self._lanes():
            lane.stop(deadline_s)
        for lane in self._lanes():
            lane.join(max(0.0, deadline_s - self._clock.monotonic_s()) + 1.0)
            counters = lane.status().counters
            log.info("output %s: delivered %d records of %d bytes", lane.name, counters.records, counters.raw_bytes)
        self.reader.finish()
        self._events.look()
        self.finding.close()
        self.network.stop()
        self.api.stop()
        self._watcher.close()
        self.registry.files.close()
        self.checkpoint.close()

    # -- the reader's thread -------------------------------------------------------------------------------------

    def _read(self, once: bool) -> None:
        try:
            self._read_until_stop(once)
        except Exception as error:  # a thread's top: the main thread is told, and ends the others in order
            self._failure = f"{type(error).__name__}: {error}"
            log.exception("unexpected error in the reader; the agent ends, a restart goes on where it was")
        finally:
            self._stop.set()
            self._wake.set()

    def _all_listed(self) -> bool:
        return self.finding.all_listed()

    def _read_until_stop(self, once: bool) -> None:
        """Wait for the first listing, cut again what was in flight, then read."""
        until_s = self._clock.monotonic_s() + LISTING_S
        while not self.finding.all_listed() and self._clock.monotonic_s() < until_s and not self._stop.is_set():
            self.reader.prepare()
        self.reader.resume(self._stop)
        self.health.set_ready()
        following = f"following {len(self.registry.all_files())} files"
        self.notifier.ready(following)
        if once:
            self.reader.run_once(self._stop)
            for notice in self.registry.notices():  # afterwards there is no agent left that `status` could ask
                log.warning("%s: %s%s", notice.subject, notice.message, f" ({notice.hint})" if notice.hint else "")
        else:
            log.info("hostagent %s is ready, %s; its state is in %s", __version__, following, self._data_dir)
            self.reader.run(self._stop)

    # -- senders' threads ----------------------------------------------------------------------------------------

    def _on_room(self) -> None:
        self.reader.wake()

    def _on_acked(self, block: Block) -> None:
        self.reader.note_acked(block)

    # -- several threads -----------------------------------------------------------------------------------------

    def _try_now(self) -> None:
        for lane in self._lanes():
            lane.nudge()

    # -- the main thread -----------------------------------------------------------------------------------------

    def _lanes(self) -> tuple[Lane, ...]:
        return tuple(self._assembly.lanes.values())

    def _notices(self) -> list[Notice]:
        outputs = [notice for lane in self._lanes() for notice in lane.notices()]
        config = config_notices(self._assembly.config)
        letters = self._assembly.dead_letters.notices()
        outputs += self._leftovers.notices(self._assembly.config.outputs)
        found = self.finding.notices()
        return [*config, *self.reloading.notices(), *found, *self.requests.notices(), *outputs, *letters]

    def _events_of_state(self) -> list[Notice]:
        """What is the matter with the state; outputs log themselves what is with their backends."""
        spools = [notice for lane in self._lanes() for notice in lane.notices() if notice.subject.startswith("spool ")]
        spools += self._leftovers.notices(self._assembly.config.outputs)
        return [*self.checkpoint.notices(), *spools, *self._assembly.dead_letters.notices()]

    def _build_api(self, config_path: Path, places: Places, feed: Feed) -> Api:
        reports = Reports(
            config=lambda: self._assembly.config,
            config_path=config_path,
            host=self._assembly.host,
            clock=self._clock,
            health=self.health,
            reader=self.reader,
            registry=self.registry,
            places=places,
            feed=feed,
            checkpoint=self.checkpoint,
            dead_letters=self._assembly.dead_letters,
            lanes=self._lanes,
            notices=self._notices,
            explain=self.finding.explain,
        )
        api = self._assembly.config.api
        addresses = [parse_listen(text) for text in api.listen]
        return Api(addresses, reports.routes(), self._clock, tcp_serves_all=api.tcp_serves_all)

    def _checks(self) -> Health:
        health = Health()
        health.set_ready("starting: not every source is being watched yet")

        def reader() -> str:
            age_s = self._clock.monotonic_s() - self.reader.heartbeat_s
            return f"no progress for {age_s:.0f} s" if age_s > READER_LIMIT_S else ""

        def checkpoint() -> str:
            return "" if self.checkpoint.healthy else "the checkpoint can't be written; delivery waits"

        def senders() -> str:
            dead = [lane.name for lane in self._lanes() if not lane.alive]
            return f"the sender of {', '.join(dead)} has ended" if dead else ""

        health.probe("reader", reader, "restart the agent; nothing is lost, files are read on from their positions")
        disk = f"look at the disk of {self._assembly.config.data_dir}"
        health.probe("checkpoint", checkpoint, disk, restart_helps=False)
        health.probe("senders", senders, "see the log; restart the agent")
        return health

    def _watch(self) -> None:
        """Now and then: feed the watchdog, look at the configuration, let the checkpoint look after itself."""
        if self.notifier.watchdog_interval_s is not None and not self.health.stuck():
            self.notifier.alive()
        self.checkpoint.look()
        if self.checkpoint.damaged:
            # Only a start puts the database in quarantine and its backup in its place: the service manager makes one.
            notices = "; ".join(notice.message for notice in self.checkpoint.notices())
            self._failure = f"the checkpoint can't be used any more: {notices}"
            self._stop.set()
            return
        if (asked := self._reload_asked.is_set()) or self.reloading.changed():
            self._reload_asked.clear()
            self.notifier.reloading()
            self.reloading.reload()
            self.notifier.ready()
            if asked:
                self._try_now()  # whoever mended something wants to see it
        self.requests.look()
        now_s = self._clock.monotonic_s()
        if now_s < self._upkeep_at_s:
            return
        self._upkeep_at_s = now_s + UPKEEP_S
        self._memory.give_back()
        self._events.look()
        try:
            self.checkpoint.maintain()
            self.checkpoint.forget_files(self._clock.wall_ns() - FORGET_AFTER_NS)
        except StateError as error:
            log.warning("checkpoint: %s", error)
