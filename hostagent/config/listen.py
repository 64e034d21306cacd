"""Addresses the local API can listen on: `unix:/path` or `host:port`.

One parser for the configuration's check, the server and the command line, so that all three mean the same socket.
It opens nothing.
"""

from __future__ import annotations

from typing import NamedTuple

# The kernel's sockaddr_un holds 108 bytes with the closing NUL; four are kept for the name used while binding.
MAX_UNIX_PATH_BYTES = 103


class UnixAddress(NamedTuple):
    """A socket file."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(NamedTuple):
    """A TCP port on one of this machine's addresses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> UnixAddress | TcpAddress:
    """The address a `listen` option means; ValueError says what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"expected an absolute path after `unix:`, found {path!r}")
        if len(path.encode()) > MAX_UNIX_PATH_BYTES:
            raise ValueError(f"a socket's path can have {MAX_UNIX_PATH_BYTES} bytes, this one has {len(path.encode())}")
        return UnixAddress(path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected unix:/path or host:port, such as 127.0.0.1:9600, found {text!r}")
    return TcpAddress(host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port))
