"""Containers for tests, with only what a test is about spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostagent.discovery.runtime.container import Container, ContainerState, Pod


def container(
    *,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **facts: Any,  # noqa: ANN401
) -> Container:
    """A running container; `annotations` are its pod's."""
    if annotations is not None:
        facts["pod"] = Pod(name="web-0", namespace="shop", uid="u-1", annotations=annotations)
    defaults: dict[str, Any] = {
        "id": "c" * 64,
        "name": "web",
        "runtime": "docker",
        "image": "busybox",
        "state": ContainerState.RUNNING,
        "log_path": f"/var/lib/docker/containers/{'c' * 64}/{'c' * 64}-json.log",
        "log_format": "docker-json",
    }
    return Container(**{**defaults, **facts}, env=env or {}, labels=labels or {})
