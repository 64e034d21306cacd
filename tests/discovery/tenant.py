"""A container's file tree on a host with secrets, and what the agent would read of it.

The tree is made of real directories; what is declared is found and opened by the code that does it in the agent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostagent.discovery.containers.options import ContainersOptions
from hostagent.discovery.containers.targets import ContainerTargets, Outcome
from hostagent.discovery.runtime.container import Container, Mount
from hostagent.tail.finding.beneath import OpenError, beneath
from hostagent.tail.finding.paths import compile_selection, join, open_beneath, scan
from tests.discovery.examples import container

SECRET = b"root:secret:\n"


class Tenant:
    """One container on a host of its own. `root` is its writable layer, `volume` is mounted at /data."""

    def __init__(self, directory: Path) -> None:
        self.host = directory
        self.root = directory / "overlay/diff"
        self.volume = directory / "volumes/data"
        self.secret = directory / "etc/shadow"
        for path in (self.root / "var/log", self.volume, self.secret.parent, directory / "empty"):
            path.mkdir(parents=True)
        self.secret.write_bytes(SECRET)
        (directory / "etc/secret.log").write_bytes(SECRET)
        self.mounts = [Mount("/data", str(self.volume))]

    def container(self, env: Mapping[str, str], **facts: Any) -> Container:  # noqa: ANN401
        roots = (str(self.host / "empty"), str(self.root))
        return container(env=env, roots=roots, mounts=tuple(self.mounts), pid=0, log_path="", **facts)

    def outcome(self, env: Mapping[str, str], **facts: Any) -> Outcome:  # noqa: ANN401
        return ContainerTargets("s", ContainersOptions()).of(self.container(env, **facts))

    def read(self, *paths: str) -> dict[str, bytes]:
        """What is read when these paths are declared, by the path that records would carry."""
        return self.read_of(self.outcome({f"aliyun_logs_l{number}": path for number, path in enumerate(paths)}))

    def read_of(self, outcome: Outcome) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        for target in outcome.targets.values():
            for found in scan(target.root, compile_selection(target.paths, target.exclude)):
                try:
                    fd = open_beneath(target.root, found.path)
                except OpenError:
                    continue
                assert target.shown_root is not None
                shown = join(target.shown_root, beneath(target.root, join(target.root, found.path)))
                contents[shown] = os.read(fd, 4096)
                os.close(fd)
        return contents
