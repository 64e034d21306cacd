"""Takes over a changed configuration while the agent runs: checked first, then swapped source by source.

A configuration with a mistake changes nothing. Sources and outputs that are the same keep their files, queues and
connections; a changed output delivers or leaves behind what it had, and its successor goes on at the acked positions.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hostagent.clock import Clock
from hostagent.config.load import config_files
from hostagent.config.model import Config
from hostagent.config.parts import Parts
from hostagent.config.reload import Reload, compare
from hostagent.daemon.finding import Finding
from hostagent.daemon.wiring import Assembly, load_checked
from hostagent.deliver.lane import Lane
from hostagent.errors import ConfigError, StateError
from hostagent.hookspecs import Notice
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.reader import Reader

log = logging.getLogger(__name__)

STOP_LANE_S = 5.0


class Reloading:
    """Looks at the configuration's files and applies what changed. The main thread's alone."""

    def __init__(
        self,
        *,
        path: Path,
        parts: Parts,
        assembly: Assembly,
        finding: Finding,
        reader: Reader,
        checkpoint: Checkpoint,
        clock: Clock,
    ) -> None:
        self._path = path
        self._parts = parts
        self._assembly = assembly
        self._finding = finding
        self._reader = reader
        self._checkpoint = checkpoint
        self._clock = clock
        self._seen = self._look()
        self._notices: list[Notice] = []
        self._stopped: list[str] = []  # outputs whose lanes were stopped for a change that could not be made then

    def notices(self) -> list[Notice]:
        """A configuration that could not be taken over, or only in part."""
        return self._notices

    def changed(self) -> bool:
        """Whether a file of the configuration is another than at the last look."""
        now = self._look()
        if now == self._seen:
            return False
        self._seen = now
        return True

    def reload(self) -> bool:
        """Read the configuration again and take over what changed; False if it has mistakes or nothing changed."""
        try:
            config = load_checked(self._path, self._parts)
        except ConfigError as error:
            # Not a fault of ours: the text says all, a traceback would hide it.
            log.error(  # noqa: TRY400
                "the changed configuration is not taken over, the agent goes on with the old one:\n%s", error
            )
            first = error.problems[0]
            others = f" (the first of {len(error.problems)} problems)" if len(error.problems) > 1 else ""
            where = f"{first.path}:{first.line}: " if first.line else f"{first.path}: "
            message = f"has changed and can't be used: {where}{first.message}{others}"
            hint = f"run `hostagent check -c {self._path}`, correct the file; it is read again when it changes"
            self._notices = [Notice(str(self._path), message, hint)]
            if self._stopped:
                self._take_over(self._assembly.config, Reload())
            return False
        difference = compare(self._assembly.config, config)
        was_told = bool(self._notices)
        self._notices = [
            Notice(str(self._path), f"`{name}` has changed, which only a restart takes over", "restart the agent")
            for name in difference.restart
        ]
        for notice in self._notices:
            log.warning("%s: %s (%s)", notice.subject, notice.message, notice.hint)
        if not difference.sources and not difference.outputs:
            again = not self._stopped or self._take_over(self._assembly.config, difference)
            if again and was_told and not self._notices:
                log.info("the configuration is the one that is in force again")
            return False
        if not self._take_over(config, difference):
            return False
        log.info("the changed configuration is in force: %s", _described(difference))
        return True

    def _take_over(self, config: Config, difference: Reload) -> bool:
        """Replace what changed, and the lanes that were stopped earlier; False if that can't be done now."""
        retired = self._retire(difference)
        if retired is None:
            return False
        self._assembly.adopt(config, retired)
        lanes = tuple(self._assembly.lanes.values())
        self._reader.post(lambda: self._reader.use_lanes(lanes))
        self._swap_sources(difference, set(retired))
        self._reader.post(self._reader.shed_lanes)
        return True

    def _retire(self, difference: Reload) -> list[str] | None:
        """Stop the lanes that change or go; None if one can't be stopped now, and then nothing is changed."""
        names = list(dict.fromkeys([*difference.outputs.changed, *difference.outputs.removed, *self._stopped]))
        self._stopped = names
        lanes = [self._assembly.lanes[name] for name in names]
        deadline_s = self._clock.monotonic_s() + STOP_LANE_S

        def stop_lanes() -> bool:
            for lane in lanes:
                lane.stop(deadline_s)
            return True

        # A lane's open block is the reader's: it is cut there, and from then on the lane has no room.
        self._reader.ask(stop_lanes, STOP_LANE_S)
        for lane in lanes:
            if not lane.join(STOP_LANE_S * 2):
                self._put_off(f"output {lane.name} is busy in its backend and can't be changed now")
                return None
        try:
            for lane in lanes:
                self._forget_inflight(lane)
        except StateError as error:
            # Its successor gets the same bytes under other ids: the next start must not send them under the old ones.
            self._put_off(f"what outputs had in flight can't be forgotten: {error}")
            return None
        self._stopped = []
        return names

    def _put_off(self, message: str) -> None:
        self._notices.append(Notice(str(self._path), message, "the change is tried again"))
        self._seen = ()

    def _forget_inflight(self, lane: Lane) -> None:
        """What the old lane left in flight is cut anew from the acked positions, under the new configuration."""
        self._checkpoint.drop_inflight(lane.name)

    def _swap_sources(self, difference: Reload, retired: set[str]) -> None:
        for name in difference.sources.removed:
            self._finding.end(name)
        fresh = {*difference.sources.added, *difference.sources.changed}
        for name, source in self._assembly.config.sources.items():
            if name in fresh:
                self._finding.begin(self._assembly, name)
            elif retired & set(source.outputs) or set(difference.outputs.added) & set(source.outputs):
                self._finding.refresh(self._assembly, name)

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        seen = []
        for name in config_files(self._path):
            try:
                status = os.stat(name)
            except OSError:
                continue
            seen.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(seen)


def _described(difference: Reload) -> str:
    changes = {
        "source": difference.sources,
        "output": difference.outputs,
    }
    words = [
        f"{kind} {name} {verb}"
        for kind, one in changes.items()
        for verb, names in (("added", one.added), ("removed", one.removed), ("changed", one.changed))
        for name in names
    ]
    return ", ".join(words)
