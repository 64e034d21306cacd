"""Finds where a file's content went on, when its path no longer leads to it.

Rotation renames a log, copies and truncates it, or compresses it, and any of these may happen while the agent is
down. Whoever lost a file asks here with what it knows of it; the answer is an open content in which its offsets still
hold. Nothing is believed without the same beginning (fingerprint) and the same bytes before the position (anchor).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Mapping
from enum import StrEnum
from typing import NamedTuple

from hostagent.hookspecs import Content, Tailer
from hostagent.model import FileId, Fingerprint
from hostagent.state.rows import Position
from hostagent.tail.files.identity import FINGERPRINT_BYTES, anchor_holds, begins_as, fingerprint, identify, same_file
from hostagent.tail.finding.beneath import OpenError, listed, open_beneath, open_directory
from hostagent.tail.tailer import PLAIN

# Below this many bytes before the position, two unrelated logs of one writer may well look alike.
_STRONG_EVIDENCE_BYTES = 64


class How(StrEnum):
    """What rotation did to the file."""

    RENAMED = "renamed"
    COPIED = "copied"
    COMPRESSED = "compressed"


class Lost(NamedTuple):
    """What is known of the file that is looked for: its last path beneath its root, and its checkpoint's row."""

    directory: str
    name: str
    identity: FileId
    fingerprint: Fingerprint
    offset: int
    anchor: bytes
    root: str = "/"

    def as_far_as(self, reached: Position) -> Lost:
        """The same when its content is known up to another position."""
        return self._replace(offset=reached.offset, anchor=reached.anchor)


class Continuation(NamedTuple):
    """Where it goes on. `content` is open and belongs to whoever asked."""

    path: str
    content: Content
    identity: FileId
    storage: str  # the name of the tailer that reads it
    how: How
    anchored: bool  # False: so far into a compressed file that the anchor is left to the first read


class Effort(NamedTuple):
    """How hard to look: siblings opened, and how much is decompressed in all to verify what stands at the offset."""

    siblings: int = 256
    decoded_bytes: int = 256 * 1024 * 1024


_EFFORT = Effort()


class _Sibling(NamedTuple):
    name: str
    inode: int
    size: int
    mtime_ns: int


def find_continuation(
    lost: Lost,
    tailers: Mapping[str, Tailer],
    *,
    owned: Container[FileId] = (),
    owned_inodes: Container[tuple[int, int]] = (),
    effort: Effort = _EFFORT,
) -> Continuation | None:
    """Look among a lost file's siblings: first for the file itself, then for a copy, then for a compressed copy.

    `owned` are files that other tailers are reading: those are somebody else's. Whoever knows their devices and inodes
    saves opening them. A file of which nothing was ever read (no fingerprint, no position) can only be found as itself,
    by its inode.
    """
    siblings = _siblings(lost, owned_inodes)
    look = _Look(tailers, owned, effort.decoded_bytes)
    for sibling in siblings:
        if sibling.inode == lost.identity.inode and (found := _examine(lost, sibling, look)):
            return found
    if not lost.fingerprint.length and not lost.offset:
        return None
    others = [sibling for sibling in siblings if sibling.inode != lost.identity.inode and sibling.size]
    for compressed in (False, True):
        for sibling in others[: effort.siblings]:
            if found := _examine(lost, sibling, look, compressed=compressed):
                return found
    return None


def find_furthest(
    lost: Lost,
    reached: Position | None,
    tailers: Mapping[str, Tailer],
    *,
    owned: Container[FileId] = (),
    owned_inodes: Container[tuple[int, int]] = (),
) -> Continuation | None:
    """The same, for a file that was once read as far as `reached`: best is what has all of that.

    A copy may have been taken before the last of it was written.
    """
    if reached is not None and reached.offset > lost.offset:
        found = find_continuation(lost.as_far_as(reached), tailers, owned=owned, owned_inodes=owned_inodes)
        if found is not None:
            return found
    return find_continuation(lost, tailers, owned=owned, owned_inodes=owned_inodes)


class _Look:
    """One search: who reads what, and how much may still be decompressed before somebody else must have a turn."""

    __slots__ = ("left_bytes", "most_bytes", "owned", "tailers")

    def __init__(self, tailers: Mapping[str, Tailer], owned: Container[FileId], most_bytes: int) -> None:
        self.tailers = tailers
        self.owned = owned
        self.most_bytes = self.left_bytes = most_bytes

    def spend(self, size_bytes: int) -> bool:
        """Whether there is that much left; then it is spent."""
        if size_bytes > self.left_bytes:
            return False
        self.left_bytes -= size_bytes
        return True


def _siblings(lost: Lost, owned_inodes: Container[tuple[int, int]]) -> list[_Sibling]:
    """Regular files beside the lost one: namesakes before strangers, the newest first.

    Thousands of files that are all read may be rewritten at once: of those nothing is asked but their names.
    """
    try:
        fd = open_directory(lost.root, lost.directory)
    except OpenError:
        return []
    try:
        device = os.fstat(fd).st_dev
        siblings = [
            _Sibling(name, status.st_ino, status.st_size, status.st_mtime_ns)
            for name, status in listed(fd, lambda inode: (device, inode) not in owned_inodes)
            if stat.S_ISREG(status.st_mode)
        ]
    except OSError:  # the directory went away while it was listed
        return []
    finally:
        os.close(fd)
    return sorted(siblings, key=lambda sibling: (not _namesake(lost.name, sibling.name), -sibling.mtime_ns))


def _namesake(name: str, other: str) -> bool:
    """Whether one name may be a rotation of the other: app.log → app.log.1, app-20250101.log, app.log.2.gz."""
    stem = name.split(".", 1)[0] or name
    return other.startswith(stem)


def _examine(
    lost: Lost,
    sibling: _Sibling,
    look: _Look,
    *,
    compressed: bool | None = None,
) -> Continuation | None:
    path = f"{lost.directory.rstrip('/')}/{sibling.name}"
    try:
        fd = open_beneath(lost.root, path, follow=False)
    except OpenError:
        return None
    content: Content | None = None
    try:
        identity = identify(fd).id
        storage = _storage(lost, sibling.name, os.pread(fd, FINGERPRINT_BYTES, 0), look.tailers)
        if identity in look.owned or (compressed is not None and compressed != (storage != PLAIN)):
            return None
        itself = same_file(identity, lost.identity)
        content = look.tailers[storage].open(fd)
        anchored = _goes_on_in(lost, content, storage, sibling, look, itself=itself)
        if anchored is None:
            return None
        how = How.RENAMED if itself else How.COPIED if storage == PLAIN else How.COMPRESSED
        found = Continuation(path, content, identity, storage, how, anchored)
        content, fd = None, -1
        return found
    except OSError:  # a disk error in one sibling is no reason to stop looking
        return None
    finally:
        if content is not None:
            content.close()
        elif fd >= 0:
            os.close(fd)


def _storage(lost: Lost, name: str, head: bytes, tailers: Mapping[str, Tailer]) -> str:
    """Which tailer reads the file: plain if its stored bytes are the lost ones, whatever else they look like."""
    if lost.fingerprint.length and begins_as(head, lost.fingerprint):
        return PLAIN
    for storage, tailer in tailers.items():
        if storage != PLAIN and tailer.recognises(name, head):
            return storage
    return PLAIN


def _goes_on_in(
    lost: Lost, content: Content, storage: str, sibling: _Sibling, look: _Look, *, itself: bool
) -> bool | None:
    """None if this is not the lost file's content; else whether its anchor was looked at, too."""
    if not lost.fingerprint.length and not lost.offset:
        return True if itself else None
    if storage == PLAIN and sibling.size < lost.offset:
        return None
    if fingerprint(content, lost.fingerprint) is None:
        return None
    namesake = _namesake(lost.name, sibling.name)
    if not (itself or (namesake and lost.fingerprint.length)) and lost.offset < _STRONG_EVIDENCE_BYTES:
        return None
    if storage != PLAIN and lost.offset > look.most_bytes:
        return False if namesake and lost.fingerprint.length == FINGERPRINT_BYTES else None
    if storage != PLAIN and not look.spend(lost.offset):
        return None
    return True if anchor_holds(content, lost.offset, lost.anchor) else None
