"""The few calls of Docker Engine's API that the agent makes, over the engine's unix socket and without Docker's SDK.

It owns version negotiation and which fault concerns one container and which the engine; what the answers mean for logs
is `session.py`'s business. It asks only, and bounds what it reads: an answer is built from texts that whoever starts a
container may choose.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from hostagent.discovery.docker.answers import EngineEvent, Info, Inspected, Listed, Version
from hostagent.discovery.docker.connections import Connections, NoAnswerError, StatusError, TooLongError
from hostagent.discovery.runtime.session import ContainerFaultError, RuntimeFaultError

# Every field that is used is the same from the oldest to the newest of these.
OLDEST_KNOWN = (1, 24)
NEWEST_KNOWN = (1, 51)
CALL_TIMEOUT_S = 10.0
MAX_LIST_BYTES = 128 * 1024 * 1024
MAX_INSPECT_BYTES = 16 * 1024 * 1024
MAX_EVENT_BYTES = 16 * 1024 * 1024
Answer = TypeVar("Answer")

# Made at import: msgspec looks at a type when it is first used, and crashes when two threads do that at once.
_VERSION = msgspec.json.Decoder(Version)
_INFO = msgspec.json.Decoder(Info)
_LIST = msgspec.json.Decoder(list[Listed])
_INSPECTED = msgspec.json.Decoder(Inspected)
_EVENT = msgspec.json.Decoder(EngineEvent)


class DockerApi:
    """One engine. Calls may come from several threads."""

    def __init__(self, socket_path: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self._connections = Connections(socket_path, timeout_s)
        try:
            version = self._version()
            self.engine = _leading_numbers(version.version)
            self._prefix = "/v{}.{}".format(*self._negotiated(version))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; calls that wait for an answer end with a fault."""
        self._connections.close()

    def info(self) -> Info:
        """The engine's own settings."""
        return self._decoded(self._get("/info", MAX_INSPECT_BYTES), _INFO, "/info")

    def containers(self) -> list[Listed]:
        """Every container, running or not."""
        path = "/containers/json?all=1"
        return self._decoded(self._get(path, MAX_LIST_BYTES), _LIST, "the list of containers")

    def inspect(self, container_id: str) -> Inspected | None:
        """One container's facts, None when there is no such container."""
        try:
            data = self._get(f"/containers/{urllib.parse.quote(container_id, safe='')}/json", MAX_INSPECT_BYTES)
        except StatusError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            # The engine answers 500 for a container it is just removing, or whose state on disk is damaged.
            raise ContainerFaultError(f"Docker can't describe it: {error}") from error
        except NoAnswerError as error:
            # The engine waits for a container's lock, which a stuck one never gives back.
            raise ContainerFaultError(f"Docker does not answer about it within {self._timeout_s} s") from error
        except TooLongError as error:
            raise ContainerFaultError(f"Docker's description is longer than {MAX_INSPECT_BYTES} bytes") from error
        try:
            return _INSPECTED.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ContainerFaultError(f"Docker's description can't be read: {error}") from error

    def events(self, filters: Mapping[str, list[str]], since_s: float) -> EngineEvents:
        """Subscribe; the engine replays what it remembers since then, so nothing falls between two subscriptions."""
        query = urllib.parse.urlencode({"since": f"{since_s:.9f}", "filters": json.dumps(filters)})
        try:
            stream_socket, response = self._connections.stream(f"{self._prefix}/events?{query}", MAX_INSPECT_BYTES)
        except StatusError as error:
            text = f"Docker at {self._socket_path} refuses its events: {error.status} {error.text}"
            raise RuntimeFaultError(text) from error
        return EngineEvents(stream_socket, response, self._socket_path)

    def _get(self, path: str, max_bytes: int) -> bytes:
        return self._connections.get(self._prefix + path, max_bytes)

    def _version(self) -> Version:
        return self._decoded(self._connections.get("/version", MAX_INSPECT_BYTES), _VERSION, "/version")

    def _negotiated(self, version: Version) -> tuple[int, int]:
        newest = self._numbers(version.api_version)
        oldest = self._numbers(version.min_api_version) if version.min_api_version else OLDEST_KNOWN
        if newest < OLDEST_KNOWN:
            text = "Docker {} at {} speaks API {} at most; the agent needs {}.{}"
            raise RuntimeFaultError(
                text.format(version.version, self._socket_path, version.api_version, *OLDEST_KNOWN), "upgrade Docker"
            )
        # An engine newer than all we know is asked in its oldest version: the fields we use have not changed in years.
        return max(min(newest, NEWEST_KNOWN), oldest)

    def _numbers(self, version: str) -> tuple[int, int]:
        major, _, minor = version.partition(".")
        if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
            text = f"Docker at {self._socket_path} gives {version!r} as its API version"
            raise RuntimeFaultError(text, "check that this socket is Docker's")
        return int(major), int(minor)

    def _decoded(self, data: bytes, decoder: msgspec.json.Decoder[Answer], what: str) -> Answer:
        try:
            return decoder.decode(data)
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
        try:
            while line := self._response.readline(MAX_EVENT_BYTES):
                yield _EVENT.decode(line)
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


def _leading_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a release, (20, 10, 24) for `20.10.24+dfsg1`; a text without any counts as the oldest release."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition("-")[0])[:3])
