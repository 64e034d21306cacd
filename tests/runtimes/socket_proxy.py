"""A unix socket in front of a runtime's own, with faults to order: cut it, bring it back, answer with garbage.

What a client sees when the daemon restarts, is upgraded or goes mad, without losing the containers behind it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 65536


class SocketProxy:
    """Copies bytes both ways between clients of `path` and the real socket."""

    def __init__(self, path: Path, upstream: Path) -> None:
        self.path = path
        self._upstream = upstream
        self._lock = threading.Lock()
        self._clients: list[socket.socket] = []
        self._ends: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @classmethod
    @contextlib.contextmanager
    def before(cls, upstream: Path, path: Path) -> Iterator[SocketProxy]:
        proxy = cls(path, upstream)
        proxy.restore()
        try:
            yield proxy
        finally:
            proxy.cut()

    def restore(self) -> None:
        """Listen (again)."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Close every connection and remove the socket."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            os.unlink(self.path)
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close every connection; new ones are served."""
        with self._lock:
            ends, self._ends, self._clients = self._ends, [], []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def say_to_clients(self, data: bytes) -> None:
        """Put bytes of ours into every stream towards a client."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(data)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(str(self._upstream))
            except OSError:
                client.close()
                server.close()
                continue
            with self._lock:
                self._clients.append(client)
                self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
