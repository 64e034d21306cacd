"""What of one container is to be read: its output and its declared files, as targets with the container's tags.

A pure decision from a container's facts, the source's options and what lies on the disk right now. The runtime's facts
always win over what a container says about itself, in its tags as in everything else.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping

import msgspec

from hostagent.digest import blake2b
from hostagent.discovery.containers.filters import Selector
from hostagent.discovery.containers.options import ContainersOptions
from hostagent.discovery.containers.paths import ContainerFiles, is_process_root
from hostagent.discovery.containers.tags import tags_of
from hostagent.discovery.declarations.dialects import Problem, shown
from hostagent.discovery.declarations.judge import LONGEST_TAG, Declaration, Rules, declarations_of
from hostagent.discovery.declarations.paths import plain_path
from hostagent.discovery.runtime.container import Container, ContainerState
from hostagent.hookspecs import Notice
from hostagent.model import Scalar, Target

# Rotated files beside a container's log that the runtime or the kubelet has not compressed.
_ROTATED = ".[0-9]*"
_NOT_LOGS = ("*.gz", "*.tmp")
_STDOUT = "/stdout"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a container: targets by id, what is wrong with it, or why it is none of this source's."""

    targets: dict[str, Target] = {}
    notices: tuple[Notice, ...] = ()
    why_not: str = ""
    has_files: bool = False


class ContainerTargets:
    """Decides for one source."""

    def __init__(self, source: str, options: ContainersOptions) -> None:
        self._source = source
        self._options = options
        self._host_root = os.path.realpath(options.host_root)
        self._selector = Selector(options.include, options.exclude)
        self._rules = Rules(options.prefixes, options.declared_outputs, options.trust_patterns)
        self._node_name = options.node_name if options.node_name is not None else os.environ.get("NODE_NAME", "")

    def of(self, container: Container, before: Outcome | None = None) -> Outcome:
        """The outcome for a container now; `before` is the last one for the same container."""
        if why_not := self._selector.why_not(container):
            return Outcome(why_not=why_not)
        declared = declarations_of(container, self._rules) if self._options.declarations else None
        declarations = declared.declarations if declared else ()
        problems = list(declared.problems) if declared else []
        facts = self._facts(container)
        targets: dict[str, Target] = {}
        stdout = self._stdout(container, declarations, facts, problems)
        if stdout is not None:
            targets[stdout.id] = stdout
        files = [*declarations, *self._own_paths()]
        has_files = any(declaration.paths for declaration in files)
        kept = _kept(container, before)
        if kept is not None:
            targets |= kept
        elif has_files:
            targets |= self._files(container, files, facts, problems)
        subject = f"container {name_of(container)}"
        notices = [Notice(subject, f"{one.where}: {one.message}", one.hint) for one in problems]
        if container.log_notice is not None and self._options.stdout != "none":
            notices.insert(0, container.log_notice)
        return Outcome(targets=targets, notices=tuple(notices), has_files=has_files)

    def takes_left_logs(self) -> bool:
        """Whether logs may be collected of which only the path is known: not where more is needed to choose them."""
        told = (self._options.include, self._options.exclude)
        return self._options.stdout == "all" and not any(one.env or one.labels or one.k8s_labels for one in told)

    def is_output(self, target: Target) -> bool:
        """Whether a target is a container's output and not a file inside it."""
        return target.id.endswith(_STDOUT)

    def facts_of(self, container: Container) -> Mapping[str, Scalar]:
        """The tags of records about the container itself."""
        return self._tags(container, self._facts(container), None)

    def _own_paths(self) -> tuple[Declaration, ...]:
        if not self._options.paths:
            return ()
        paths = tuple(plain_path(path) for path in self._options.paths)
        return (Declaration(name="", where=f"paths of source {self._source}", paths=paths),)

    def _facts(self, container: Container) -> Mapping[str, Scalar]:
        return {name: _clean(value) for name, value in tags_of(container, self._node_name).items()}

    def _tags(
        self, container: Container, facts: Mapping[str, Scalar], declared: Declaration | None
    ) -> dict[str, Scalar]:
        """A container's own tags first, then the operator's, then the runtime's: the later ones stand."""
        tags: dict[str, Scalar] = dict(declared.tags) if declared else {}
        if declared and declared.target:
            tags["target"] = declared.target
        wanted = self._options.tags_from
        pod_labels = container.pod.labels if container.pod else {}
        for names, values in (
            (wanted.env, container.env),
            (wanted.labels, container.labels),
            (wanted.k8s_labels, pod_labels),
        ):
            tags |= {tag: _clean(values[key]) for key, tag in names.items() if key in values}
        return {**tags, **facts}

    def _stdout(
        self,
        container: Container,
        declarations: tuple[Declaration, ...],
        facts: Mapping[str, Scalar],
        problems: list[Problem],
    ) -> Target | None:
        asked = [declaration for declaration in declarations if declaration.stdout]
        problems += [
            Problem(other.where, f"the standard output is collected as {asked[0].name!r} already")
            for other in asked[1:]
        ]
        wanted = self._options.stdout == "all" or (self._options.stdout == "declared" and bool(asked))
        if not wanted or not container.log_path:
            return None
        declared = asked[0] if asked else None
        path = glob.escape(os.path.normpath(container.log_path))
        # A pod's log can outlive what the runtime knows of its container, and be found again by its path.
        whose = container.log_path if container.pod and container.log_format == "cri" else f"/{container.id}"
        return Target(
            id=f"{self._source}{whose}{_STDOUT}",
            source=self._source,
            root=self._host_root,
            paths=(path, path + _ROTATED),
            exclude=_NOT_LOGS,
            tags=self._tags(container, facts, declared),
            format=container.log_format or None,
            multiline=declared.multiline if declared else None,
            parse=declared.parse if declared else None,
            outputs=declared.outputs if declared else None,
            declaration=f"{name_of(container)}: {declared.where if declared else 'standard output'}",
            promised=container.state is not ContainerState.CREATED,
        )

    def _files(
        self,
        container: Container,
        declarations: list[Declaration],
        facts: Mapping[str, Scalar],
        problems: list[Problem],
    ) -> dict[str, Target]:
        """Targets for declared files: one for each declaration and directory of the host."""
        files = ContainerFiles(container, self._host_root)
        targets: dict[str, Target] = {}
        for declaration in declarations:
            found: dict[tuple[str, str], dict[str, None]] = {}
            for path in declaration.paths:
                located = files.locate(path)
                for place in located.places:
                    found.setdefault((place.root, place.shown_root), {})[place.path] = None
                if is_running(container):
                    problems += [Problem(declaration.where, message, hint) for message, hint in located.problems]
            for (root, shown_root), paths in found.items():
                target = Target(
                    id=f"{self._source}/{_place_id(root, tuple(paths))}",
                    source=self._source,
                    root=root,
                    shown_root=shown_root,
                    paths=tuple(paths),
                    tags=self._tags(container, facts, declaration),
                    format=declaration.format,
                    multiline=declaration.multiline,
                    parse=declaration.parse,
                    outputs=declaration.outputs,
                    declaration=f"{name_of(container)}: {declaration.where}",
                )
                if target.id in targets:
                    other = targets[target.id].declaration.partition(": ")[2]
                    problems.append(Problem(declaration.where, f"names the same files as {other}, so this is ignored"))
                    continue
                targets[target.id] = target
        return targets


def _kept(container: Container, before: Outcome | None) -> dict[str, Target] | None:
    """File targets of a container that has ended: as they were while it ran, but for what only its process showed."""
    if before is None or is_running(container):
        return None
    return {
        key: target
        for key, target in before.targets.items()
        if not key.endswith(_STDOUT) and not is_process_root(target.root)
    } or None


def is_running(container: Container) -> bool:
    """Whether its processes are there, if only frozen."""
    return container.state in (ContainerState.RUNNING, ContainerState.PAUSED)


def _place_id(root: str, paths: tuple[str, ...]) -> str:
    """The same for every container that mounts the same directory: its files are read once, and on over restarts."""
    return blake2b("\0".join((root, *paths)).encode(errors="surrogateescape"), digest_size=12).hexdigest()


def name_of(container: Container) -> str:
    """A container's name for people: a pod's with namespace and pod."""
    if container.pod:
        return shown(f"{container.pod.namespace}/{container.pod.name}/{container.name}", 200)
    return shown(container.name or container.id[:12], 200)


def _clean(value: Scalar) -> Scalar:
    """Images and labels are a tenant's text."""
    return shown(value, LONGEST_TAG) if isinstance(value, str) else value
