"""What the configuration may say about a source of type `containers`, and what is wrong with what it says.

It is all that is loaded of this folder while nobody has such a source, so it imports nothing that speaks to a runtime.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from hostagent.discovery.containers.filters import Filter
from hostagent.discovery.declarations.paths import plain_path

# What the kernel's sockaddr_un holds beside its closing NUL.
MAX_SOCKET_PATH_BYTES = 107

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class TagSources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tags taken from a container's environment and labels and its pod's labels: their key → the tag's name."""

    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    k8s_labels: dict[str, str] = {}


class ContainersOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which containers, and what of them. Without `runtimes`, those whose sockets are in their usual places."""

    runtimes: tuple[str, ...] = ()
    host_root: str = "/"
    stdout: Literal["all", "declared", "none"] = "all"
    paths: tuple[str, ...] = ()
    declarations: bool = True
    prefixes: tuple[str, ...] = ("aliyun", "loong")
    declared_outputs: tuple[str, ...] = ()
    trust_patterns: bool = False
    include: Filter = Filter()
    exclude: Filter = Filter()
    tags_from: TagSources = TagSources()
    node_name: str | None = None
    facts: bool = False
    pod_logs: str = "/var/log/pods"
    refresh_interval_s: Seconds = 10.0

    def __post_init__(self) -> None:
        for path in self.paths:
            try:
                plain_path(path)
            except ValueError as error:
                raise ValueError(f"paths: {path!r} {error}") from error
        if not self.host_root.startswith("/"):
            raise ValueError(f"host_root: {self.host_root!r} is not an absolute path")
        if self.pod_logs and not self.pod_logs.startswith("/"):
            raise ValueError(f"pod_logs: {self.pod_logs!r} is not an absolute path; an empty one switches it off")
        for number, runtime in enumerate(self.runtimes):
            kind, found, path = runtime.partition("://")
            if not found or kind not in ("docker", "cri") or not path.startswith("/"):
                raise ValueError(f"runtimes: {runtime!r} is neither docker:///path/to/socket nor cri:///path/to/socket")
            if (size := len(os.fsencode(path))) > MAX_SOCKET_PATH_BYTES:
                raise ValueError(
                    f"runtimes: a socket's path can have {MAX_SOCKET_PATH_BYTES} bytes, {path!r} has {size}: use a link"
                )
            if runtime in self.runtimes[:number]:
                raise ValueError(f"runtimes: {runtime!r} is listed twice")
        for prefix in self.prefixes:
            if not prefix:
                raise ValueError("prefixes: has an empty entry")
