"""What a runtime's socket says before anybody speaks its protocol: there or not, allowed or not, served or not.

Both runtimes' discoveries use it, so that an operator reads the same words for the same fault.
"""

from __future__ import annotations

import errno
import socket

from hostagent.discovery.runtime.session import RuntimeFaultError

HINTS = {
    errno.ENOENT: "start {name}, or take this socket out of the source's options",
    errno.EACCES: "run the agent as root, or in the group that owns the socket",
    errno.EPERM: "run the agent as root, or in the group that owns the socket",
    errno.ECONNREFUSED: "start {name}: the socket is there, but nobody listens",
    errno.ENOTSOCK: "give the path of {name}'s socket",
}


def connected(path: str, name: str, timeout_s: float | None) -> socket.socket:
    """A connection to the socket, or a fault that says what to do."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise unreachable(path, name, error) from error
    return connection


def unreachable(path: str, name: str, error: Exception) -> RuntimeFaultError:
    """The fault for an error of the connection."""
    number = (error.errno if isinstance(error, OSError) else None) or 0
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
    hint = HINTS.get(number, f"look at {name}'s own log; it is tried again").format(name=name)
    return RuntimeFaultError(f"{name} at {path} can't be reached: {reason}", hint)
