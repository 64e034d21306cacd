"""Where the content of a file that is being read went on, when it isn't behind the file's path any more.

Asked when a file was rewritten or is gone: `lineage` looks for the place, the registry lets the file go on there. In
the reader's thread.
"""

from __future__ import annotations

import os

from hostagent.model import FileId
from hostagent.state.rows import Position
from hostagent.tail.files.lineage import How, Lost, find_continuation, find_furthest
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import beneath
from hostagent.tail.tailer import TailedFile


def follow_rest(registry: Registry, tailed: TailedFile, reached: Position | None = None) -> bool:
    """Look for the file's content under another name or in a copy, and let the file go on there; whether it was found.

    It was once read as far as `reached`, if that is known to be further than its cursors.
    """
    found = find_furthest(
        _lost(tailed),
        reached,
        registry.files.tailers,
        owned=_others(registry, tailed),
        owned_inodes=_held_inodes(registry, tailed),
    )
    if found is None:
        return False
    registry.relocate(tailed, found)
    return True


def has_copy(registry: Registry, tailed: TailedFile, reached: Position) -> bool:
    """Whether another file begins as this one did, and has what was once read of it."""
    lost = _lost(tailed).as_far_as(reached)
    found = find_continuation(lost, registry.files.tailers, owned=_others(registry, tailed))
    if found is None:
        return False
    found.content.close()
    return found.how is not How.RENAMED


def _lost(tailed: TailedFile) -> Lost:
    leader, root = tailed.leader(), tailed.origin.target.root
    directory, name = os.path.split(beneath(root, tailed.path))
    return Lost(directory, name, tailed.identity, tailed.fingerprint, leader.offset, leader.anchor, root)


def _others(registry: Registry, tailed: TailedFile) -> set[FileId]:
    return {identity for identity, other in registry.by_identity.items() if other is not tailed}


def _held_inodes(registry: Registry, tailed: TailedFile) -> set[tuple[int, int]]:
    """Devices and inodes of the other files that are open. That of one that is not may be the copy's by now."""
    return {
        (identity.device, identity.inode)
        for identity, other in registry.by_identity.items()
        if other is not tailed and other.content is not None and other.identity == identity
    }
