"""Logs of pods that outlive what the runtime knows: removed containers whose files the kubelet has not deleted yet.

A container may run, end and be removed while the agent is down or the runtime does not answer. Its log then still lies
in the kubelet's directory, and its path says whose it was. This module only finds such files and describes them as
containers; it opens none and decides nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container as Collection
from collections.abc import Iterator

from hostagent.discovery.runtime.container import Container, ContainerState, Pod

# `<namespace>_<pod>_<uid>/<container>/<attempt>.log`, made by the kubelet. Names in Kubernetes have no underscore.
_POD = re.compile(r"(?P<namespace>[a-z0-9.-]+)_(?P<pod>[a-z0-9.-]+)_(?P<uid>[A-Za-z0-9-]+)")
_LOG = re.compile(r"(?P<attempt>\d{1,9})\.log")
MOST_LEFT = 10_000


class LeftLogs:
    """The files of a kubelet's log directory that belong to no container which a runtime knows.

    A file that has grown since `before_ns` may belong to a container whose event is still on its way. It counts only
    when two looks, one after the other, find nobody to whom it belongs.
    """

    def __init__(self, host_root: str, directory: str, before_ns: int) -> None:
        self._host_root = host_root
        self._directory = os.path.normpath(directory)
        self._before_ns = before_ns
        self._seen: set[str] = set()

    def look(self, known: Collection[str]) -> dict[str, Container]:
        """Containers of logs that were left, by the log's path; `known` are the paths of the runtimes' containers."""
        left: dict[str, Container] = {}
        seen: set[str] = set()
        for path, pod, name, attempt, changed_ns in self._logs():
            if path in known:
                continue
            seen.add(path)
            if changed_ns < self._before_ns or path in self._seen:
                left[path] = _container(path, pod, name, attempt)
            if len(seen) >= MOST_LEFT:
                break
        self._seen = seen
        return left

    def has(self, path: str) -> bool:
        """Whether a log is still there."""
        return os.path.lexists(self._on_host(path))

    def covers(self, path: str) -> bool:
        """Whether a log lies in the kubelet's directory."""
        return path.startswith(self._directory + "/")

    def _logs(self) -> Iterator[tuple[str, Pod, str, int, int]]:
        for pod_name in _directories(self._on_host(self._directory)):
            found = _POD.fullmatch(pod_name)
            if found is None:
                continue
            pod = Pod(name=found["pod"], namespace=found["namespace"], uid=found["uid"])
            for container in _directories(self._on_host(f"{self._directory}/{pod_name}")):
                directory = f"{self._directory}/{pod_name}/{container}"
                for name, changed_ns in _files(self._on_host(directory)):
                    if log := _LOG.fullmatch(name):
                        yield f"{directory}/{name}", pod, container, int(log["attempt"]), changed_ns

    def _on_host(self, path: str) -> str:
        return os.path.join(self._host_root, path.lstrip("/"))


def _container(path: str, pod: Pod, name: str, attempt: int) -> Container:
    """What the path says. The runtime's own id is forgotten; this one is as good at telling containers apart."""
    return Container(
        id=f"{pod.uid}/{name}/{attempt}",
        name=name,
        runtime="cri",
        image="",
        state=ContainerState.EXITED,
        pod=pod,
        log_path=path,
        log_format="cri",
        restarts=attempt,
    )


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _files(path: str) -> list[tuple[str, int]]:
    """Regular files with the time of their last change. Under Docker there are links: Docker's own files are read."""
    try:
        with os.scandir(path) as entries:
            regular = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            return [(entry.name, entry.stat(follow_symlinks=False).st_mtime_ns) for entry in regular]
    except OSError:
        return []
