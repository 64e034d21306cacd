"""Who of several containers a target is published for.

A volume may be mounted in many containers, and outlives most of them: the pod's container that was started again, the
replica on the same host. Their files are one target, or they would be read once for each. It belongs to a container
that runs, if any does, and is published anew when it goes over to another one; it is removed with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hostagent.model import Target, TargetChange

Publish = Callable[[TargetChange], None]


class Claims:
    """Targets by id, and the containers that ask for each, in the order in which they did."""

    def __init__(self) -> None:
        self._claims: dict[str, dict[str, Target]] = {}
        self._running: dict[str, bool] = {}
        self._published: dict[str, tuple[str, Target]] = {}

    def put(self, container_id: str, targets: Mapping[str, Target], *, running: bool, publish: Publish) -> None:
        """A container asks for these targets from now on, and for no others."""
        self._running[container_id] = running
        before = self._of(container_id)
        for target_id in before - targets.keys():
            self._drop(target_id, container_id)
        for target_id, target in targets.items():
            self._claims.setdefault(target_id, {})[container_id] = target
        self._settle([*targets, *(before - targets.keys())], publish)

    def remove(self, container_id: str, publish: Publish) -> None:
        """The container is gone."""
        mine = self._of(container_id)
        for target_id in mine:
            self._drop(target_id, container_id)
        self._running.pop(container_id, None)
        self._settle(mine, publish)

    def again(self, container_id: str, publish: Publish) -> None:
        """Publish the container's targets once more as they are: whoever reads them looks for files anew."""
        for target_id in self._of(container_id):
            publish(TargetChange("changed", self._published[target_id][1]))

    def _of(self, container_id: str) -> set[str]:
        return {target_id for target_id, claims in self._claims.items() if container_id in claims}

    def _drop(self, target_id: str, container_id: str) -> None:
        claims = self._claims[target_id]
        del claims[container_id]
        if not claims:
            del self._claims[target_id]

    def _settle(self, target_ids: Iterable[str], publish: Publish) -> None:
        for target_id in target_ids:
            published = self._published.get(target_id)
            claims = self._claims.get(target_id)
            if not claims:
                if published is not None:
                    del self._published[target_id]
                    publish(TargetChange("removed", published[1]))
                continue
            owner = self._owner(claims, published[0] if published else "")
            self._published[target_id] = (owner, claims[owner])
            if published is None:
                publish(TargetChange("added", claims[owner]))
            elif published[1] != claims[owner]:
                publish(TargetChange("changed", claims[owner]))

    def _owner(self, claims: Mapping[str, Target], before: str) -> str:
        """The owner stays unless it has ended and another one runs; then it is the one that came last."""
        running = [one for one in claims if self._running.get(one)]
        if before in claims and (before in running or not running):
            return before
        return running[-1] if running else next(reversed(list(claims)))
