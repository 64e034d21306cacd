"""The few CRI v1 calls that the agent makes, and two of containerd's own, over the runtime's unix socket.

It owns the channel and turns every failure of gRPC into one of discovery's two faults; what the answers mean for logs
is `session.py`'s business. Importing it loads grpcio (about 20 MB), so it is imported only where a CRI socket is
configured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from hostagent.discovery.cri.proto import containerd_pb2 as containerd
from hostagent.discovery.cri.proto import cri_pb2 as cri
from hostagent.discovery.runtime.session import ContainerFaultError, RuntimeFaultError
from hostagent.discovery.runtime.unix_socket import connected

CALL_TIMEOUT_S = 10.0
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
RUNTIME_SERVICE = "/runtime.v1.RuntimeService/"
EVENTS_SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"
SNAPSHOT_MOUNTS = "/containerd.services.snapshots.v1.Snapshots/Mounts"
# Where containerd's CRI plugin keeps everything Kubernetes made.
CONTAINERD_NAMESPACE = "k8s.io"

# Codes that say nothing about the container that was asked about.
WHOLE_RUNTIME = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNIMPLEMENTED)

Answer = TypeVar("Answer", bound=Message)
Answer_co = TypeVar("Answer_co", bound=Message, covariant=True)


class UnsupportedError(RuntimeFaultError):
    """The runtime doesn't offer this call."""


class CriApi:
    """One runtime. Calls may come from several threads."""

    def __init__(self, socket_path: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        # gRPC hides why it can't connect, so the socket is tried by itself first.
        connected(socket_path, "the container runtime", timeout_s).close()
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Each session begins without the last one's back-off.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.insecure_channel(f"unix:{socket_path}", options=options)

    def close(self) -> None:
        """Close the channel; calls and streams that wait for an answer end with a fault."""
        self._channel.close()

    def version(self) -> cri.VersionResponse:
        """Which runtime this is; the call that shows whether CRI v1 is spoken at all."""
        try:
            return self._call(RUNTIME_SERVICE + "Version", cri.VersionRequest(), cri.VersionResponse)
        except UnsupportedError as error:
            raise RuntimeFaultError(
                f"the runtime at {self._socket_path} does not speak CRI v1: {error}",
                "containerd needs 1.6 or newer with its CRI plugin on (see disabled_plugins), CRI-O 1.23 or newer",
            ) from error

    def status_info(self) -> dict[str, str]:
        """What the runtime tells of its own configuration."""
        return dict(self._call(RUNTIME_SERVICE + "Status", cri.StatusRequest(verbose=True), cri.StatusResponse).info)

    def containers(self) -> list[cri.Container]:
        """Every container of every pod, running or not."""
        request = cri.ListContainersRequest()
        return list(self._call(RUNTIME_SERVICE + "ListContainers", request, cri.ListContainersResponse).containers)

    def container(self, container_id: str) -> cri.Container | None:
        """A container's row of the list."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(id=container_id))
        found = self._ask(RUNTIME_SERVICE + "ListContainers", request, cri.ListContainersResponse)
        return next((one for one in found.containers if one.id == container_id), None) if found else None

    def sandbox(self, sandbox_id: str) -> cri.PodSandbox | None:
        """A pod's sandbox."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(id=sandbox_id))
        found = self._ask(RUNTIME_SERVICE + "ListPodSandbox", request, cri.ListPodSandboxResponse)
        return next((one for one in found.items if one.id == sandbox_id), None) if found else None

    def container_status(self, container_id: str) -> cri.ContainerStatusResponse | None:
        """A container's facts, with what the runtime adds about process and file system."""
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
        return self._ask(RUNTIME_SERVICE + "ContainerStatus", request, cri.ContainerStatusResponse)

    def snapshot_mounts(self, snapshotter: str, key: str) -> list[containerd.Mount]:
        """How containerd mounts a container's root file system; the only place that knows its upper directory."""
        request = containerd.MountsRequest(snapshotter=snapshotter, key=key)
        found = self._ask(SNAPSHOT_MOUNTS, request, containerd.MountsResponse)
        return list(found.mounts) if found else []

    def containerd_events(self, topics: tuple[str, ...]) -> Stream[containerd.Envelope]:
        """The event stream of containerd itself; each filter is one alternative."""
        filters = [f'namespace=="{CONTAINERD_NAMESPACE}",topic=="{topic}"' for topic in topics]
        return self._stream(EVENTS_SUBSCRIBE, containerd.SubscribeRequest(filters=filters), containerd.Envelope)

    def container_events(self) -> Stream[cri.ContainerEventResponse]:
        """CRI's event stream, which came late to the interface."""
        path = RUNTIME_SERVICE + "GetContainerEvents"
        return self._stream(path, cri.GetEventsRequest(), cri.ContainerEventResponse)

    def _stream(self, path: str, request: Message, answer: type[Answer]) -> Stream[Answer]:
        invoke = self._channel.unary_stream(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        return Stream(invoke(request), self._socket_path)

    def _ask(self, path: str, request: Message, answer: type[Answer]) -> Answer | None:
        """A call about one container: None when it is unknown, and nobody else suffers when it gets no answer."""
        try:
            return self._invoked(path, request, answer)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            if error.code() in WHOLE_RUNTIME:
                raise _fault(self._socket_path, error) from error
            raise ContainerFaultError(f"the runtime can't describe it: {_words(error)}") from error

    def _call(self, path: str, request: Message, answer: type[Answer]) -> Answer:
        """A call about the runtime or all its containers."""
        try:
            return self._invoked(path, request, answer)
        except grpc.RpcError as error:
            raise _fault(self._socket_path, error) from error

    def _invoked(self, path: str, request: Message, answer: type[Answer]) -> Answer:
        invoke = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            # containerd's own services need the name space; CRI's pay no heed to it.
            metadata = (("containerd-namespace", CONTAINERD_NAMESPACE),)
            response: Answer = invoke(request, timeout=self._timeout_s, metadata=metadata)
        except ValueError as error:
            raise RuntimeFaultError(f"the connection to {self._socket_path} has been closed") from error
        return response


class _Call(Protocol[Answer_co]):
    """A streaming call: what grpc returns, but gives no public name."""

    def __iter__(self) -> Iterator[Answer_co]: ...

    def cancel(self) -> bool: ...


class Stream(Generic[Answer]):
    """A server's stream of messages, without end until one side closes it."""

    def __init__(self, call: _Call[Answer], socket_path: str) -> None:
        self._call = call
        self._socket_path = socket_path

    def __iter__(self) -> Iterator[Answer]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise _fault(self._socket_path, error) from error

    def close(self) -> None:
        """End the iteration from another thread."""
        self._call.cancel()


def _fault(socket_path: str, error: grpc.RpcError) -> RuntimeFaultError:
    text = f"the runtime at {socket_path}: {_words(error)}"
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedError(text)
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return RuntimeFaultError(text, "look at the runtime's own log; it is asked again")
    return RuntimeFaultError(text, "check that the runtime runs and that this is its CRI socket; it is tried again")


def _words(error: grpc.RpcError) -> str:
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
