"""Sockets the API listens on: a unix socket that replaces a dead predecessor's, or a TCP port.

Owns the file of the socket and nothing of what is said over it. It never removes a file that is not a socket, nor the
socket of an agent that still answers.
"""

from __future__ import annotations

import os
import socket
import stat
from errno import EADDRINUSE, EADDRNOTAVAIL
from typing import NamedTuple

from hostagent.config.listen import TcpAddress, UnixAddress
from hostagent.errors import HostagentError

BACKLOG = 64
_HINTS = {
    EADDRINUSE: "another process has it: stop that one, or set `api.listen` to a free one",
    EADDRNOTAVAIL: "no interface of this machine has this address: set `api.listen` to one that has",
}


class Listener(NamedTuple):
    """A listening socket. `inode` is that of the socket's file, 0 for TCP."""

    sock: socket.socket
    address: UnixAddress | TcpAddress
    inode: int

    def close(self) -> None:
        """Stop listening and remove the socket's file, unless another agent has put its own there."""
        self.sock.close()
        if isinstance(self.address, UnixAddress):
            try:
                if os.lstat(self.address.path).st_ino == self.inode:
                    os.unlink(self.address.path)
            except OSError:
                return


def open_listener(address: UnixAddress | TcpAddress) -> Listener:
    """Listen on an address; HostagentError says why it can't be."""
    try:
        if isinstance(address, UnixAddress):
            return _open_unix(address)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        sock.setblocking(False)
        return Listener(sock, TcpAddress(address.host, sock.getsockname()[1]), 0)
    except OSError as error:
        # Python's own words for a TCP address repeat it; a name that can't be resolved has a number below 0.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0, "set `api.listen` to an address this user may listen on")
        raise HostagentError(f"the API can't listen on {address}: {reason}; {hint}") from error


def _open_unix(address: UnixAddress) -> Listener:
    path = address.path
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise HostagentError(f"the API can't listen on {address}: a file that is no socket is there; remove it")
        if _answers(path):
            raise HostagentError(f"the API can't listen on {address}: a running agent answers there; stop it first")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Bound under another name and renamed once its mode is right: nobody can connect in between, and an old socket's
    # file is replaced in one step.
    young = f"{path}.new"
    try:
        if os.path.lexists(young) and stat.S_ISSOCK(os.lstat(young).st_mode):
            os.unlink(young)
        sock.bind(young)
        os.chmod(young, 0o660)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        os.rename(young, path)
    except OSError:
        sock.close()
        raise
    return Listener(sock, address, os.lstat(path).st_ino)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True
