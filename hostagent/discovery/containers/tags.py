"""The tags that say which container a record came from.

They are made from what the runtime itself says of the container, never from what its declarations ask for, and hold
nothing that changes while the container lives: a file's tags are kept with its position.
"""

from __future__ import annotations

from hostagent.discovery.runtime.container import Container
from hostagent.model import Scalar

COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
SWARM_STACK = "com.docker.stack.namespace"
SWARM_SERVICE = "com.docker.swarm.service.name"


def tags_of(container: Container, node_name: str = "") -> dict[str, Scalar]:
    """Who wrote it: container, image, and the pod or the compose or swarm service it belongs to."""
    tags: dict[str, Scalar] = {
        "container_id": container.id,
        "container_name": container.name,
        "image": container.image,
    }
    if pod := container.pod:
        tags |= {
            "k8s_pod": pod.name,
            "k8s_pod_namespace": pod.namespace,
            "k8s_pod_uid": pod.uid,
            "k8s_container_name": container.name,
        }
        if node_name:
            tags["k8s_node_name"] = node_name
        # In a pod every restart makes a new container; docker restarts one in place, and then the number changes.
        if container.restarts is not None:
            tags["k8s_restart_count"] = container.restarts
        return tags
    labels = container.labels
    app = labels.get(COMPOSE_PROJECT) or labels.get(SWARM_STACK)
    service = labels.get(COMPOSE_SERVICE) or labels.get(SWARM_SERVICE)
    if app:
        tags["docker_app"] = app
    if service:
        tags["docker_service"] = service
    return tags
