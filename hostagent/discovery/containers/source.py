"""The source type `containers`: what the runtimes' containers write to their standard output and to files inside them.

It joins the runtimes' pictures, the source's filters and the containers' declarations into targets: one for a
container's output, one for each directory of the host that has declared files. It opens no log; a container that is
gone has its targets removed, which means drained.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from msgspec.structs import replace

from hostagent.clock import Clock
from hostagent.discovery.containers.chosen_runtimes import runtimes_of
from hostagent.discovery.containers.claims import Claims, Publish
from hostagent.discovery.containers.explaining import explained, goes_by
from hostagent.discovery.containers.facts import Facts
from hostagent.discovery.containers.left_logs import LeftLogs
from hostagent.discovery.containers.options import ContainersOptions
from hostagent.discovery.containers.targets import ContainerTargets, Outcome, is_running
from hostagent.discovery.runtime.container import Container, ContainerChange, ContainerRuntime, ContainerState
from hostagent.hookspecs import Explained, Notice, Wiring
from hostagent.model import Target, TargetChange

MOST_NOTICES = 200


class _Inbox:
    """Changes on their way from the runtimes' threads to the source's."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self._lock = threading.Lock()
        self._changes: list[tuple[int, ContainerChange]] = []

    def put(self, runtime: int, change: ContainerChange) -> None:
        with self._lock:
            self._changes.append((runtime, change))
            self.ready.set()

    def take(self) -> list[tuple[int, ContainerChange]]:
        with self._lock:
            taken, self._changes = self._changes, []
            self.ready.clear()
        return taken


class ContainersDiscovery:
    """Publishes the targets of every container the source is about, as containers come, change and go."""

    def __init__(
        self,
        runtimes: Sequence[ContainerRuntime],
        targets: ContainerTargets,
        clock: Clock,
        refresh_interval_s: float,
        *,
        left_logs: LeftLogs | None = None,
        facts: Facts | None = None,
    ) -> None:
        self._runtimes = runtimes
        self._left_logs = left_logs
        self._facts = facts
        self._targets = targets
        self._clock = clock
        self._refresh_interval_s = refresh_interval_s
        self._lock = threading.Lock()
        self._containers: dict[str, Container] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._claims = Claims()
        self._left: dict[str, Container] = {}

    def run(self, publish: Publish, stop: threading.Event) -> None:
        """Follow every runtime until `stop` is set."""
        inbox = _Inbox()
        if self._facts is not None:
            publish(TargetChange("added", self._facts.target()))
        for number, runtime in enumerate(self._runtimes):
            self._start(number, runtime, inbox, stop)
        unlisted = set(range(len(self._runtimes)))
        refresh_at_s = self._clock.monotonic_s() + self._refresh_interval_s
        while not stop.is_set():
            self._clock.wait(inbox.ready, min(max(refresh_at_s - self._clock.monotonic_s(), 0.0), 0.5))
            # Asked before the changes are taken: what it has told is then among them.
            pods_known = self._pods_known()
            listed_before = not unlisted
            for number, change in inbox.take():
                if change.container is not None:
                    self._take(change, publish)
                else:
                    unlisted.discard(number)
            refresh = self._clock.monotonic_s() >= refresh_at_s
            if refresh:
                self._refresh(publish)
                refresh_at_s = self._clock.monotonic_s() + self._refresh_interval_s
            listed_now = not unlisted and not listed_before
            if (refresh and listed_before and pods_known) or (listed_now and self._pods_known()):
                self._look_for_left_logs(publish)
            if listed_now:
                publish(TargetChange("listed"))

    def notices(self) -> list[Notice]:
        """What keeps a runtime from being followed, then what is wrong with single containers."""
        found = [notice for runtime in self._runtimes for notice in runtime.notices()]
        found += self._facts.notices() if self._facts else []
        with self._lock:
            for outcome in self._outcomes.values():
                found += outcome.notices
        if len(found) > MOST_NOTICES:
            rest = len(found) - MOST_NOTICES
            found = [*found[:MOST_NOTICES], Notice("containers", f"{rest} further notices are not listed")]
        return found

    def explain(self, name: str) -> list[Explained]:
        """What came of the containers whose id begins with the text, or whose own or pod's name it is."""
        with self._lock:
            pairs = [(one, self._outcomes[container_id]) for container_id, one in self._containers.items()]
        return [explained(container, outcome) for container, outcome in pairs if goes_by(container, name)]

    def _start(self, number: int, runtime: ContainerRuntime, inbox: _Inbox, stop: threading.Event) -> None:
        def follow() -> None:
            runtime.run(lambda change: inbox.put(number, change), stop)

        threading.Thread(target=follow, name=f"{threading.current_thread().name}:{number}", daemon=True).start()

    def _take(self, change: ContainerChange, publish: Publish) -> None:
        container = change.container
        assert container is not None
        before = self._outcomes.get(container.id)
        removed = change.kind == "removed"
        if not removed:
            self._decide(container, before, publish)
            left = self._left.get(container.log_path)
            if left is not None and left.id != container.id:
                self._drop_left(container.log_path, left, publish)
            self._left.pop(container.log_path, None)
        outcome = before if removed else self._outcomes[container.id]
        if self._facts is not None and outcome is not None and not outcome.why_not:
            self._facts.note(container, self._targets.facts_of(container), removed=removed)
        if removed:
            self._forget(container, publish)

    def _forget(self, container: Container, publish: Publish) -> None:
        """A container is gone. A pod's log that is still there is followed until it is gone, too."""
        with self._lock:
            self._containers.pop(container.id, None)
            before = self._outcomes.pop(container.id, None)
        if before is not None and before.has_files:
            self._look_once_more(container, before, publish)
        left = self._left_by(container, before) if before is not None else None
        if left is None:
            self._claims.remove(container.id, publish)
            return
        self._left[container.log_path] = container
        with self._lock:
            self._containers[container.id] = replace(container, state=ContainerState.EXITED, pid=0)
            self._outcomes[container.id] = Outcome(targets={left.id: left})
        self._claims.put(container.id, {left.id: left}, running=False, publish=publish)

    def _left_by(self, container: Container, before: Outcome) -> Target | None:
        """The target of a removed container's output, if its log outlives it."""
        logs = self._left_logs
        if logs is None or container.log_format != "cri" or not logs.covers(container.log_path):
            return None
        if not logs.has(container.log_path):
            return None
        return next((one for one in before.targets.values() if self._targets.is_output(one)), None)

    def _pods_known(self) -> bool:
        return any(runtime.knows_pods() for runtime in self._runtimes)

    def _look_for_left_logs(self, publish: Publish) -> None:
        """Logs of pods that no runtime knows: take up those that are new, drop those that have been deleted."""
        if self._left_logs is None:
            return
        for path, container in list(self._left.items()):
            if not self._left_logs.has(path):
                self._drop_left(path, container, publish)
        if not self._targets.takes_left_logs():
            return
        known = {one.log_path for one in self._containers.values()}
        for path, container in self._left_logs.look(known).items():
            self._left[path] = container
            self._decide(container, None, publish)

    def _drop_left(self, path: str, container: Container, publish: Publish) -> None:
        del self._left[path]
        with self._lock:
            self._containers.pop(container.id, None)
            self._outcomes.pop(container.id, None)
        self._claims.remove(container.id, publish)

    def _look_once_more(self, container: Container, before: Outcome, publish: Publish) -> None:
        """Have its files looked for a last time: one that lived for milliseconds may have left some in its mounts."""
        ended = replace(container, state=ContainerState.EXITED, pid=0)
        self._claims.again(container.id, publish)
        targets = {**self._targets.of(ended).targets, **before.targets}
        self._claims.put(container.id, targets, running=False, publish=publish)

    def _decide(self, container: Container, before: Outcome | None, publish: Publish) -> None:
        outcome = self._targets.of(container, before)
        with self._lock:
            self._containers[container.id] = container
            self._outcomes[container.id] = outcome
        self._claims.put(container.id, outcome.targets, running=is_running(container), publish=publish)

    def _refresh(self, publish: Publish) -> None:
        """Look again where declared paths lead: a directory or a link may have appeared since."""
        for container_id, outcome in list(self._outcomes.items()):
            container = self._containers[container_id]
            if outcome.has_files and is_running(container):
                self._decide(container, outcome, publish)


def build_containers(options: ContainersOptions, wiring: Wiring) -> ContainersDiscovery:
    """Build the discovery of one source."""
    return ContainersDiscovery(
        runtimes_of(options.runtimes, wiring.clock, options.host_root),
        ContainerTargets(wiring.name, options),
        wiring.clock,
        options.refresh_interval_s,
        left_logs=LeftLogs(options.host_root, options.pod_logs, wiring.clock.wall_ns()) if options.pod_logs else None,
        facts=Facts(wiring.data_dir, wiring.name, wiring.clock) if options.facts else None,
    )
