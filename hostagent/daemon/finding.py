"""Runs the discoveries, each in a thread of its own, and brings their news to the reader.

Owns which targets every source has published. A discovery that fails is told of and stops nothing else. It knows
neither files nor events.
"""

from __future__ import annotations

import logging
import threading

from msgspec.structs import replace

from hostagent.clock import Clock
from hostagent.daemon.wiring import Assembly
from hostagent.errors import ConfigError
from hostagent.hookspecs import Discovery, Explained, Explains, Notice
from hostagent.model import Target, TargetChange
from hostagent.tail.reader import Reader

log = logging.getLogger(__name__)


class _Search:
    """One running discovery."""

    def __init__(self, source: str, discovery: Discovery) -> None:
        self.source = source
        self.discovery = discovery
        self.stop = threading.Event()
        self.published: dict[str, Target] = {}
        self.listed = False
        self.thread: threading.Thread | None = None


class Finding:
    """The discoveries of all sources. `begin`, `end` and `close` are the main thread's."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._searches: dict[str, _Search] = {}
        self._refused: dict[str, Notice] = {}

    def begin(self, assembly: Assembly, source: str) -> None:
        """Start the discovery of a source, in the place of an earlier one; what that one alone had found goes."""
        before = self._searches.get(source)
        if before is not None:
            before.stop.set()
        search = _Search(source, assembly.discovery(assembly.config.sources[source]))
        self._searches[source] = search
        search.thread = threading.Thread(
            target=self._run, args=(assembly, search, before), name=f"find:{source}", daemon=True
        )
        search.thread.start()

    def end(self, source: str) -> None:
        """The source is gone: stop its discovery, drain its files."""
        search = self._searches.pop(source)
        search.stop.set()
        self._reader.post(lambda: self._drop(search.published))

    def refresh(self, assembly: Assembly, source: str) -> None:
        """Build the source's targets anew: an output it uses has changed, its discovery has not."""
        search = self._searches[source]

        def reopen() -> None:
            for target in list(search.published.values()):
                self._open(assembly, target)

        self._reader.post(reopen)

    def all_listed(self) -> bool:
        """Whether every discovery has published what was there when it started."""
        return all(search.listed for search in self._searches.values())

    def notices(self) -> list[Notice]:
        """What is not collected, and why."""
        found = [notice for search in list(self._searches.values()) for notice in search.discovery.notices()]
        return [*self._refused.values(), *found]

    def explain(self, name: str) -> list[tuple[str, Explained]]:
        """What each source that knows things by names makes of everything with this one."""
        return [
            (search.source, explained)
            for search in list(self._searches.values())
            if isinstance(search.discovery, Explains)
            for explained in search.discovery.explain(name)
        ]

    def close(self) -> None:
        """Stop all discoveries."""
        for search in self._searches.values():
            search.stop.set()
        for search in self._searches.values():
            if search.thread is not None:
                search.thread.join(1.0)

    def _run(self, assembly: Assembly, search: _Search, before: _Search | None) -> None:
        def publish(change: TargetChange) -> None:
            if not search.stop.is_set():
                self._reader.post(lambda: self._take(assembly, search, before, change))

        try:
            search.discovery.run(publish, search.stop)
        except Exception as error:  # a thread's top, and a plugin's code: one source must not end the others
            message = f"its discovery ended with {type(error).__name__}: {error}; nothing new is found for it"
            self._refused[search.source] = Notice(f"source {search.source}", message, "see the log; restart the agent")
            log.exception("source %s: %s", search.source, message)
        publish(TargetChange("listed"))

    def _take(self, assembly: Assembly, search: _Search, before: _Search | None, change: TargetChange) -> None:
        """In the reader's thread: act on a discovery's news."""
        target = change.target
        if target is None:
            if before is not None and not search.listed:
                self._drop({id_: old for id_, old in before.published.items() if id_ not in search.published})
            search.listed = True
            source = assembly.config.sources.get(search.source)
            if source is not None:
                self._reader.close_vanished(source.name, source.outputs)
        elif change.kind == "removed":
            search.published.pop(target.id, None)
            self._refused.pop(target.id, None)
            self._reader.drop_target(target.id)
        else:
            search.published[target.id] = target
            self._open(assembly, target)

    def _open(self, assembly: Assembly, target: Target) -> None:
        """Have a target read. What its declaration asks for and can't have is left out: the log is worth more."""
        self._refused.pop(target.id, None)
        raw = replace(target, multiline=None, parse=None, outputs=None)
        for wanted in (target, raw, replace(raw, format=None)):
            try:
                place = assembly.place(wanted)
            except ConfigError as error:
                problem = Notice(target.declaration or target.id, str(error), "correct the declaration")
                if self._refused.setdefault(target.id, problem) is problem:
                    log.warning("target %s: %s", target.id, error)
            else:
                self._reader.open_target(place)
                return

    def _drop(self, targets: dict[str, Target]) -> None:
        for target_id in targets:
            self._reader.drop_target(target_id)
