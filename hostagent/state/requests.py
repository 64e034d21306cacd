"""What an operator asks of the agent through the data directory: to send refused or quarantined records again.

The command line puts a request into `requests/`, durably, whether an agent runs or not; the agent takes it within
seconds or at its next start, and leaves a result beside it. Whoever may write here may write the whole state, so this
gives nobody new rights, and the API stays one that only answers.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostagent.state.durable import sync_directory
from hostagent.state.faults import os_fault

REQUESTS_DIRECTORY = "requests"
_MAX_BYTES = 16 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send again to an output: dead letters, by their ids, or the whole blocks of a segment file."""

    output: str
    letters: tuple[str, ...] = ()
    segment: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: entries or blocks that were sent, and what could not be."""

    sent: int
    failures: tuple[str, ...] = ()


class Pending(NamedTuple):
    """A request that has no result yet; None when the file is no request."""

    path: Path
    request: Request | None


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode
_decode_result = msgspec.json.Decoder(Result).decode


def put_request(data_dir: Path, request: Request) -> Path:
    """Store a request durably, as the state's owner; StateError when that can't be done."""
    directory = data_dir / REQUESTS_DIRECTORY
    path = directory / f"{os.urandom(8).hex()}.json"
    try:
        owner = os.stat(data_dir)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o750)
            _give(directory, owner)
        _write(path, _encode(request), owner)
        sync_directory(directory)
    except OSError as error:
        raise os_fault(directory, "put a request there", error) from error
    return path


def pending(data_dir: Path) -> list[Pending]:
    """The requests without a result, by name."""
    directory = data_dir / REQUESTS_DIRECTORY
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_fault(directory, "list the requests", error) from error
    found = []
    for name in names:
        try:
            found.append(Pending(directory / name, _decode_request(_read(directory / name))))
        except (OSError, msgspec.DecodeError):
            found.append(Pending(directory / name, None))
    return found


def finish(path: Path, result: Result) -> None:
    """Leave the result in the request's place. OSError when the disk won't have it: the request is done again then."""
    _write(path.with_suffix(".done"), _encode(result), os.stat(path.parent))
    path.unlink(missing_ok=True)


def take_result(path: Path) -> Result | None:
    """The result of a request, once; None when there is none yet."""
    done = path.with_suffix(".done")
    try:
        result = _decode_result(_read(done))
        done.unlink()
    except (OSError, msgspec.DecodeError):
        return None
    return result


def drop_results(data_dir: Path) -> None:
    """Results nobody has fetched."""
    for path in (data_dir / REQUESTS_DIRECTORY).glob("*.done"):
        with contextlib.suppress(OSError):
            path.unlink()


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(_MAX_BYTES)


def _write(path: Path, content: bytes, owner: os.stat_result) -> None:
    fresh = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o640), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _give(fresh, owner)
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _give(path: Path, owner: os.stat_result) -> None:
    """To the agent's user, when root asks on its behalf."""
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
