"""Asks the running agent: one GET over its unix socket (or a TCP port), with words for when nobody answers.

The other end is `observe/api.py`. It works while the configuration file is broken, which is when `status` is needed.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from hostagent.cli.options import must_be_there
from hostagent.config.listen import TcpAddress, UnixAddress, parse_listen
from hostagent.config.single import read_api
from hostagent.errors import HostagentError

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024

Report = TypeVar("Report", bound=msgspec.Struct)


class NobodyAnswersError(HostagentError):
    """No agent runs, or, `forbidden`, none this user may talk to."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden


class _Connection(http.client.HTTPConnection):
    """HTTP over whatever socket an address means."""

    def __init__(self, address: UnixAddress | TcpAddress) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._address = address

    def connect(self) -> None:
        if isinstance(self._address, TcpAddress):
            self.sock = socket.create_connection((self._address.host, self._address.port), TIMEOUT_S)
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._address.path)


def find_address(config_path: str, override: str | None) -> UnixAddress | TcpAddress:
    """Where the agent with this configuration listens: its unix socket before a TCP port."""
    if override is not None:
        try:
            return parse_listen(override)
        except ValueError as error:
            raise HostagentError(f"--api: {error}") from error
    must_be_there(config_path)
    addresses = [parse_listen(text) for text in read_api(config_path).listen]
    chosen = sorted(addresses, key=lambda address: isinstance(address, TcpAddress))
    if not chosen:
        raise HostagentError("the configuration switches the API off (`api.listen` is empty); name one with --api")
    return chosen[0]


def ask(address: UnixAddress | TcpAddress, path: str, query: Mapping[str, str], report: type[Report]) -> Report:
    """GET a report; HostagentError says which socket was tried and what to do."""
    url = path + ("?" + urlencode(query, errors="surrogateescape") if query else "")
    connection = _Connection(address)
    try:
        connection.request("GET", url)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        hint = "start one with `hostagent run`, or name its configuration with -c, or its socket with --api"
        raise NobodyAnswersError(f"no running agent answers at {address} ({error.strerror}): {hint}") from error
    except PermissionError as error:
        hint = "use sudo, or join the group that owns the socket"
        raise NobodyAnswersError(f"this user may not talk to the agent at {address}: {hint}", forbidden=True) from error
    except (OSError, http.client.HTTPException) as error:
        hint = "the agent may be stuck; see its log"
        raise HostagentError(f"the agent at {address} gave no proper answer ({error}): {hint}") from error
    finally:
        connection.close()
    if response.status == 404 and isinstance(address, TcpAddress):
        raise HostagentError(f"{address} serves metrics and health only: use the unix socket, or `api.tcp_serves_all`")
    if response.status != 200:
        raise HostagentError(f"the agent at {address} answered {path} with {response.status}: see its log")
    try:
        return msgspec.json.decode(body, type=report)
    except msgspec.DecodeError as error:
        hint = "is the agent of another version than this command?"
        raise HostagentError(f"the answer of {address} can't be read ({error}): {hint}") from error
