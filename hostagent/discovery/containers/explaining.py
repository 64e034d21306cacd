"""What came of a container, in words: for `hostagent explain`, and for nobody who decides anything."""

from __future__ import annotations

from hostagent.discovery.containers.targets import Outcome, name_of
from hostagent.discovery.runtime.container import Container
from hostagent.hookspecs import Explained
from hostagent.model import Target


def goes_by(container: Container, name: str) -> bool:
    """Whether somebody who says this name may mean this container."""
    if not name:
        return False
    names = [container.name]
    if pod := container.pod:
        names += [pod.name, f"{pod.namespace}/{pod.name}", f"{pod.namespace}/{pod.name}/{container.name}"]
    return name in names or container.id.startswith(name)


def explained(container: Container, outcome: Outcome) -> Explained:
    """The container, each of its targets with its place on the host, and what stands in the way of others."""
    steps = [f"{container.state} in {container.runtime}, id {container.id[:12]}"]
    if outcome.why_not:
        steps.append(outcome.why_not)
    steps += [_target(target) for target in outcome.targets.values()]
    steps += [f"{notice.message}" + (f" ({notice.hint})" if notice.hint else "") for notice in outcome.notices]
    if len(steps) == 1:
        steps.append("declares no log, and its output is not asked for")
    return Explained(f"container {name_of(container)}", tuple(steps), tuple(outcome.targets))


def _target(target: Target) -> str:
    what = target.declaration.partition(": ")[2]
    where = ", ".join(path if target.root == "/" else target.root.rstrip("/") + path for path in target.paths)
    parts = [f"{what}: {where}"]
    parts += [f"format {target.format}"] if target.format else []
    parts += [f"parsed as {target.parse.get('type')}"] if target.parse else []
    parts += ["multiline"] if target.multiline else []
    return ", ".join(parts)
