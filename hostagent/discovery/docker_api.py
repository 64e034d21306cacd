"""The few calls of Docker Engine's API that the agent makes, over the engine's unix socket and without Docker's SDK.

It owns connections, version negotiation and the shape of answers; what they mean for logs is `docker.py`'s business. It
asks only, and bounds what it reads: an answer is built from texts that whoever starts a container may choose.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from hostagent.discovery.follow import ContainerFaultError, RuntimeFaultError
from hostagent.discovery.unix_socket import connected, unreachable

# Every field that is used is the same from the oldest to the newest of these.
OLDEST_KNOWN = (1, 24)
NEWEST_KNOWN = (1, 51)
CALL_TIMEOUT_S = 10.0
MAX_LIST_BYTES = 128 * 1024 * 1024
MAX_INSPECT_BYTES = 16 * 1024 * 1024
MAX_EVENT_BYTES = 16 * 1024 * 1024
Answer = TypeVar("Answer")


class Version(msgspec.Struct, frozen=True, rename="pascal"):
    """What the engine says of itself."""

    api_version: str
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    version: str = ""


class Info(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the engine keeps its data."""

    docker_root_dir: str = "/var/lib/docker"


class Listed(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of the list of containers."""

    id: str
    names: list[str] | None = None
    state: str = ""


class LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """Where a container's output goes."""

    type: str = ""
    config: dict[str, str] | None = None


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was started with, outside of it."""

    log_config: LogConfig = LogConfig()
    tmpfs: dict[str, str] | None = None


class ContainerConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was started with, inside of it."""

    image: str = ""
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    tty: bool = False


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the container is in its life."""

    status: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    error: str = ""
    started_at: str = ""
    finished_at: str = ""


class MountPoint(msgspec.Struct, frozen=True, rename="pascal"):
    """A mount of the container."""

    type: str = "bind"
    source: str = ""
    destination: str = ""
    rw: bool = msgspec.field(default=True, name="RW")


class GraphDriver(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the container's root file system is stored."""

    data: dict[str, str] | None = None


class Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    """One container's facts."""

    id: str
    name: str = ""
    created: str = ""
    log_path: str = ""
    restart_count: int = 0
    state: State = State()
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()
    mounts: list[MountPoint] | None = None
    graph_driver: GraphDriver | None = None


class Actor(msgspec.Struct, frozen=True):
    """Whom an event is about."""

    id: str = msgspec.field(default="", name="ID")


class EngineEvent(msgspec.Struct, frozen=True):
    """One line of the event stream."""

    action: str = msgspec.field(default="", name="Action")
    actor: Actor = msgspec.field(default=Actor(), name="Actor")
    time_ns: int = msgspec.field(default=0, name="timeNano")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket; the host name above is sent, but nobody looks at it."""
        self.sock = connected(self._path, "Docker", self.timeout)

    def break_off(self) -> None:
        """Make a read in another thread return at once."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class DockerApi:
    """One engine. Calls may come from several threads; each uses a kept connection that no other call is using."""

    def __init__(self, socket_path: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[UnixConnection] = []
        self._busy: set[UnixConnection] = set()
        self._closed = False
        self._prefix = ""
        try:
            version = self._version()
            self.engine = _leading_numbers(version.version)
            self._prefix = "/v{}.{}".format(*self._negotiated(version))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; calls that wait for an answer end with a fault."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.break_off()
        for connection in idle:
            connection.close()

    def info(self) -> Info:
        """The engine's own settings."""
        return self._decoded(self._get("/info", MAX_INSPECT_BYTES), Info, "/info")

    def containers(self) -> list[Listed]:
        """Every container, running or not."""
        path = "/containers/json?all=1"
        return self._decoded(self._get(path, MAX_LIST_BYTES), list[Listed], "the list of containers")

    def inspect(self, container_id: str) -> Inspected | None:
        """One container's facts, None when there is no such container."""
        try:
            data = self._get(f"/containers/{urllib.parse.quote(container_id, safe='')}/json", MAX_INSPECT_BYTES)
        except _StatusError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            # The engine answers 500 for a container it is just removing, or whose state on disk is damaged.
            raise ContainerFaultError(f"Docker can't describe it: {error}") from error
        except _NoAnswerError as error:
            # The engine waits for a container's lock, which a stuck one never gives back.
            raise ContainerFaultError(f"Docker does not answer about it within {self._timeout_s} s") from error
        except _TooLongError as error:
            raise ContainerFaultError(f"Docker's description is longer than {MAX_INSPECT_BYTES} bytes") from error
        try:
            return msgspec.json.decode(data, type=Inspected)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ContainerFaultError(f"Docker's description can't be read: {error}") from error

    def events(self, filters: Mapping[str, list[str]], since_s: float) -> EngineEvents:
        """Subscribe; the engine replays what it remembers since then, so nothing falls between two subscriptions."""
        query = urllib.parse.urlencode({"since": f"{since_s:.9f}", "filters": json.dumps(filters)})
        connection = UnixConnection(self._socket_path, self._timeout_s)
        try:
            connection.connect()
            stream_socket = connection.sock
            connection.request("GET", f"{self._prefix}/events?{query}")
            response = connection.getresponse()
            if response.status != http.client.OK:
                text = _bounded(response, MAX_INSPECT_BYTES).decode(errors="replace")
                raise RuntimeFaultError(
                    f"Docker at {self._socket_path} refuses its events: {response.status} {text[:200]}"
                )
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise unreachable(self._socket_path, "Docker", error) from error
        except BaseException:
            connection.close()
            raise
        # From here on silence is normal.
        stream_socket.settimeout(None)
        return EngineEvents(stream_socket, response, self._socket_path)

    def _version(self) -> Version:
        return self._decoded(self._get("/version", MAX_INSPECT_BYTES), Version, "/version")

    def _negotiated(self, version: Version) -> tuple[int, int]:
        newest = _numbers(version.api_version)
        oldest = _numbers(version.min_api_version) if version.min_api_version else OLDEST_KNOWN
        if newest < OLDEST_KNOWN:
            text = "Docker {} at {} speaks API {} at most; the agent needs {}.{}"
            raise RuntimeFaultError(
                text.format(version.version, self._socket_path, version.api_version, *OLDEST_KNOWN), "upgrade Docker"
            )
        # An engine newer than all we know is asked in its oldest version: the fields we use have not changed in years.
        return max(min(newest, NEWEST_KNOWN), oldest)

    def _get(self, path: str, max_bytes: int) -> bytes:
        """The body of one answer, which must be a 200."""
        # A kept connection that turns out to be closed is no fault yet: the engine may have restarted.
        while (answer := self._tried(path, max_bytes)) is None:
            pass
        status, data = answer
        if status != http.client.OK:
            raise _StatusError(self._socket_path, path, status, data.decode(errors="replace").strip()[:200])
        return data

    def _tried(self, path: str, max_bytes: int) -> tuple[int, bytes] | None:
        """Status and body; None when a kept connection was of no use any more, so that another one is worth a try."""
        connection, kept = self._taken()
        try:
            connection.request("GET", self._prefix + path)
            response = connection.getresponse()
            answer = response.status, _bounded(response, max_bytes)
        except TimeoutError as error:
            self._dropped(connection)
            text = f"Docker at {self._socket_path} does not answer within {self._timeout_s} s"
            raise _NoAnswerError(text, "look at Docker's own log; it is asked again") from error
        except (OSError, http.client.HTTPException) as error:
            self._dropped(connection)
            if kept:
                return None
            raise unreachable(self._socket_path, "Docker", error) from error
        except BaseException:
            self._dropped(connection)
            raise
        self._put_back(connection)
        return answer

    def _taken(self) -> tuple[UnixConnection, bool]:
        with self._lock:
            if self._closed:
                raise RuntimeFaultError(f"the connection to Docker at {self._socket_path} has been closed")
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else UnixConnection(self._socket_path, self._timeout_s)
            self._busy.add(connection)
        return connection, kept

    def _dropped(self, connection: UnixConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _put_back(self, connection: UnixConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _decoded(self, data: bytes, kind: type[Answer], what: str) -> Answer:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"Docker at {self._socket_path} answered {what} with something else: {error}"
            raise RuntimeFaultError(text, "check that this socket is Docker's") from error


class EngineEvents:
    """The engine's event stream: one JSON object a line, without end."""

    def __init__(self, stream_socket: socket.socket, response: http.client.HTTPResponse, socket_path: str) -> None:
        self._socket = stream_socket
        self._response = response
        self._socket_path = socket_path

    def __iter__(self) -> Iterator[EngineEvent]:
        decoder = msgspec.json.Decoder(EngineEvent)
        try:
            while line := self._response.readline(MAX_EVENT_BYTES):
                yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RuntimeFaultError(
                f"Docker at {self._socket_path} sent an event that can't be read: {error}"
            ) from error
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # ValueError and AttributeError are how http.client says that the other thread has closed the stream.
            raise RuntimeFaultError(f"Docker at {self._socket_path} broke off its events: {error!r}") from error
        finally:
            # Not in close(): the buffer's lock is held while a read waits, and only this thread reads.
            self._response.close()

    def close(self) -> None:
        """End the iteration: the blocked read returns as if the engine had hung up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class _StatusError(RuntimeFaultError):
    def __init__(self, socket_path: str, path: str, status: int, text: str) -> None:
        super().__init__(f"Docker at {socket_path} answered {path} with {status}: {text}")
        self.status = status


class _NoAnswerError(RuntimeFaultError):
    pass


class _TooLongError(RuntimeFaultError):
    pass


def _bounded(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    data = response.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _TooLongError(f"an answer of Docker is longer than {max_bytes} bytes")
    return data


def _leading_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a release, (20, 10, 24) for `20.10.24+dfsg1`; a text without any counts as the oldest release."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition("-")[0])[:3])


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise RuntimeFaultError(f"Docker gives {version!r} as its API version", "check that this socket is Docker's")
    return int(major), int(minor)
