"""Docker's containers, as the engine's API describes them, in runtime-neutral terms.

It turns the engine's answers into `Container` values and its events into ids to look at; `runtime/` keeps the
picture. It decides where a container's output is read, never whether it is, and believes only the engine about who a
container is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime

from hostagent.clock import Clock
from hostagent.discovery.docker.answers import Inspected
from hostagent.discovery.docker.api import DockerApi, EngineEvents
from hostagent.discovery.docker.disk import fresh_from_disk
from hostagent.discovery.runtime.container import Container, ContainerState, Mount, Pod, environment
from hostagent.discovery.runtime.session import ContainerFaultError, Event, NotAContainerError
from hostagent.hookspecs import Notice

# The engine's clock is ours, but an event is stamped a little before it can be asked for.
REPLAY_S = 5.0
ACTIONS = ("create", "start", "die", "oom", "rename", "update", "pause", "unpause", "destroy")
STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
    "paused": ContainerState.PAUSED,
    "removing": ContainerState.EXITED,
    "exited": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
}
# Where Kubernetes runs on Docker, the kubelet's shim writes who a container is into its name; an image can't do that,
# while it can carry any label. None of the parts may contain an underscore.
KUBELET_NAME = re.compile(
    r"/k8s_(?P<container>[^_]+)_(?P<pod>[^_]+)_(?P<namespace>[^_]+)_(?P<uid>[^_]+)_(?P<attempt>\d+)"
)
# Drivers that send output away and can't read it back: for their containers the engine keeps a copy, in the format of
# its driver `local`, unless told not to.
CACHED_DRIVERS = ("awslogs", "fluentd", "gcplogs", "gelf", "logentries", "splunk", "syslog")
KEEPS_CACHE = (20, 10)
SANDBOX_LABEL = "io.kubernetes.sandbox.id"
ANNOTATION_PREFIX = "annotation."
SANDBOX_CONTAINER = "POD"


class DockerSession:
    """One connection to an engine."""

    def __init__(self, socket_path: str, clock: Clock, host_root: str) -> None:
        self._api = DockerApi(socket_path)
        self._clock = clock
        self._host_root = host_root
        try:
            self._root = self._api.info().docker_root_dir
        except BaseException:
            self._api.close()
            raise
        self._keeps_cache = self._api.engine >= KEEPS_CACHE
        # Sandboxes never change; two threads that ask for one at the same time get the same answer.
        self._sandboxes: dict[str, Inspected | None] = {}

    def close(self) -> None:
        """Give the connection back."""
        self._api.close()

    def subscribe(self) -> DockerEvents:
        """Listen to what changes containers."""
        now_s = self._clock.wall_ns() / 1e9
        return DockerEvents(
            self._api.events({"type": ["container"], "event": list(ACTIONS)}, now_s - REPLAY_S), int(now_s * 1e9)
        )

    def list(self) -> Mapping[str, Hashable]:
        """Ids with name and state: what changes without an event shows in them."""
        listed = self._api.containers()
        ids = {one.id for one in listed}
        self._sandboxes = {key: value for key, value in self._sandboxes.items() if key in ids}
        return {one.id: (one.state, tuple(one.names or ())) for one in listed}

    def glance(self, container_id: str) -> Container | None:
        """A new container as the engine wrote it to disk: it answers about it only once it has been started."""
        facts = fresh_from_disk(self._host_root, self._root, container_id)
        try:
            return self._container(facts) if facts else None
        except NotAContainerError:
            return None

    def describe(self, container_id: str) -> Container | None:
        """One container as the engine knows it now."""
        facts = self._api.inspect(container_id)
        return self._container(facts) if facts else None

    def _container(self, facts: Inspected) -> Container:
        kubelet = KUBELET_NAME.fullmatch(facts.name)
        if kubelet and kubelet["container"] == SANDBOX_CONTAINER:
            raise NotAContainerError("the sandbox of a pod")
        pod = self._pod(kubelet, facts) if kubelet else None
        return container_from(facts, self._root, pod, kubelet, engine_keeps_cache=self._keeps_cache)

    def _pod(self, kubelet: re.Match[str], facts: Inspected) -> Pod:
        """The pod from the container's name; its labels and annotations from its sandbox, if that says the same."""
        sandbox_id = (facts.config.labels or {}).get(SANDBOX_LABEL, "")
        if sandbox_id and sandbox_id not in self._sandboxes:
            try:
                self._sandboxes[sandbox_id] = self._api.inspect(sandbox_id)
            except ContainerFaultError:
                self._sandboxes[sandbox_id] = None
        sandbox = self._sandboxes.get(sandbox_id)
        named = KUBELET_NAME.fullmatch(sandbox.name) if sandbox else None
        labels: Mapping[str, str] = {}
        if sandbox and named and named["container"] == SANDBOX_CONTAINER and named["uid"] == kubelet["uid"]:
            labels = sandbox.config.labels or {}
        return Pod(
            name=kubelet["pod"],
            namespace=kubelet["namespace"],
            uid=kubelet["uid"],
            labels={
                key: value for key, value in labels.items() if not key.startswith((ANNOTATION_PREFIX, "io.kubernetes."))
            },
            annotations={
                key.removeprefix(ANNOTATION_PREFIX): value
                for key, value in labels.items()
                if key.startswith(ANNOTATION_PREFIX)
            },
        )


class DockerEvents:
    """The ids in the engine's events. Replayed ones name containers that may be gone for good."""

    def __init__(self, events: EngineEvents, subscribed_ns: int) -> None:
        self._events = events
        self._subscribed_ns = subscribed_ns

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if event.actor.id:
                fresh = event.time_ns >= self._subscribed_ns
                started = fresh and event.action == "start"
                yield Event(event.actor.id, expected=started or (fresh and event.action == "create"), ran=started)

    def close(self) -> None:
        """End the iteration."""
        self._events.close()


def container_from(
    facts: Inspected, root: str, pod: Pod | None, kubelet: re.Match[str] | None, *, engine_keeps_cache: bool
) -> Container:
    """The runtime-neutral value of one container."""
    driver = facts.host_config.log_config.type
    log_path, log_format, notice = _log_of(facts, root, driver, engine_keeps_cache=engine_keeps_cache)
    state = STATES.get(facts.state.status, ContainerState.UNKNOWN)
    return Container(
        id=facts.id,
        name=kubelet["container"] if kubelet else facts.name.removeprefix("/"),
        runtime="docker",
        image=facts.config.image,
        state=state,
        pid=facts.state.pid,
        env=environment(facts.config.env or ()),
        labels=facts.config.labels or {},
        pod=pod,
        log_path=log_path,
        log_format=log_format,
        log_notice=notice,
        mounts=_mounts_of(facts),
        roots=_roots_of(facts),
        restarts=int(kubelet["attempt"]) if kubelet else facts.restart_count,
        exit_code=facts.state.exit_code if state == ContainerState.EXITED else None,
        oom_killed=facts.state.oom_killed,
        reason=facts.state.error,
        started_ns=nanoseconds(facts.state.started_at),
        finished_ns=nanoseconds(facts.state.finished_at),
    )


def _log_of(facts: Inspected, root: str, driver: str, *, engine_keeps_cache: bool) -> tuple[str, str, Notice | None]:
    """The file with the container's output, its framing, and what there is to say when there is none.

    The engine names the file only once the container has started, but always puts it in the same place; known
    beforehand, it can be opened in the moment it appears.
    """
    directory = f"{root}/containers/{facts.id}"
    if driver == "json-file":
        return facts.log_path or f"{directory}/{facts.id}-json.log", "docker-json", None
    if driver == "local":
        return f"{directory}/local-logs/container.log", "docker-local", None
    subject = f"container {facts.name.removeprefix('/') or facts.id[:12]}"
    if driver == "none":
        hint = "start it with --log-driver json-file or local"
        return "", "", Notice(subject, "log driver `none` keeps no output", hint)
    if driver == "journald":
        hint = f"collect it with a source of type journal: CONTAINER_ID_FULL={facts.id}"
        return "", "", Notice(subject, "log driver `journald` writes its output to the journal", hint)
    if driver in CACHED_DRIVERS and engine_keeps_cache:
        if (facts.host_config.log_config.config or {}).get("cache-disabled", "").lower() not in ("true", "1", "t"):
            return f"{directory}/container-cached.log", "docker-local", None
        hint = "start it without the log option cache-disabled"
        return "", "", Notice(subject, f"log driver `{driver}` keeps no copy of its output here", hint)
    hint = "start it with --log-driver json-file or local, or collect it where the driver sends it"
    return "", "", Notice(subject, f"log driver `{driver}` writes its output to no file the agent reads", hint)


def _mounts_of(facts: Inspected) -> tuple[Mount, ...]:
    mounts = [
        Mount(one.destination, one.source if one.type != "tmpfs" else "", one.type, not one.rw)
        for one in facts.mounts or ()
        if one.destination
    ]
    listed = {one.destination for one in mounts}
    mounts += [Mount(path, "", "tmpfs") for path in facts.host_config.tmpfs or () if path not in listed]
    return tuple(mounts)


def _roots_of(facts: Inspected) -> tuple[str, ...]:
    """The merged directory shows the whole root while it runs, the upper one what was written, until the removal."""
    data = (facts.graph_driver.data if facts.graph_driver else None) or {}
    return tuple(path for path in (data.get("MergedDir", ""), data.get("UpperDir", "")) if path.startswith("/"))


def nanoseconds(stamp: str) -> int:
    """An RFC 3339 time with up to nine digits after the point; 0 for "never" and for what is no time at all."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return max(int(seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9]), 0)
    except (ValueError, OverflowError):
        return 0
