"""What may be a copy is told from what begins alike, at whatever moment its original is truncated."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from hostagent.clock import Clock
from hostagent.hookspecs import Content
from hostagent.model import FileId, Target
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.builtin import FileTailer
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.elsewhere import follow_rest
from hostagent.tail.files.identity import anchor_of
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.ports import Chain
from hostagent.tail.tailer import PLAIN, TailedFile

BANNER = b"=" * 2000 + b"\n"
LINES = b"".join(b"line %06d\n" % number for number in range(1000))


class TruncatedMeanwhile:
    """A content whose file is truncated by somebody after so many reads."""

    def __init__(self, content: Content, path: Path, reads: int) -> None:
        self.fd = content.fd
        self._content = content
        self._path = path
        self._reads = reads

    def read(self, offset: int, size: int) -> bytes:
        if self._reads == 0:
            os.truncate(self._path, 0)
        self._reads -= 1
        return self._content.read(offset, size)

    def close(self) -> None:
        self._content.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    checkpoint = Checkpoint.open(tmp_path / "data", Clock())
    registry = Registry(OpenFiles({PLAIN: FileTailer()}, 10), checkpoint, KnownRows(), Clock())
    yield registry
    for tailed in registry.all_files():
        registry.files.release(tailed)
    checkpoint.close()


def origin_at(directory: Path) -> Origin:
    target = Target(id="app", source="app", paths=(f"{directory}/*",))
    policy = Policy("beginning", None, 0.2, drop_page_cache=False)
    return Origin(target, cast("Chain", None), (), {}, policy)


def begun(registry: Registry, origin: Origin, path: Path, read_bytes: int) -> TailedFile:
    opened = registry.open(origin, str(path))
    assert opened is not None
    tailed = registry.begin(origin, str(path), opened)
    for cursor in tailed.cursors:
        cursor.offset, cursor.anchor = read_bytes, anchor_of(path.read_bytes()[:read_bytes])
    return tailed


def suspected(registry: Registry, origin: Origin, path: Path) -> bool:
    opened = registry.open(origin, str(path))
    assert opened is not None
    try:
        return Copies(registry, Clock()).suspect(origin, str(path), opened)
    finally:
        opened.content.close()


@pytest.mark.parametrize("read_bytes", [0, len(BANNER), len(BANNER + LINES)])
@pytest.mark.parametrize("reads", range(6))
def test_a_copy_is_one_whenever_its_original_is_truncated(
    registry: Registry, tmp_path: Path, reads: int, read_bytes: int
) -> None:
    log, copy = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(BANNER + LINES)
    origin = origin_at(tmp_path)
    tailed = begun(registry, origin, log, read_bytes)
    copy.write_bytes(BANNER + LINES)
    assert tailed.content is not None
    tailed.content = TruncatedMeanwhile(tailed.content, log, reads)
    assert suspected(registry, origin, copy)


def test_what_only_begins_alike_is_no_copy(registry: Registry, tmp_path: Path) -> None:
    log, other = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(BANNER + LINES)
    other.write_bytes(BANNER + LINES[::-1])
    origin = origin_at(tmp_path)
    begun(registry, origin, log, len(BANNER))
    assert not suspected(registry, origin, other)


def test_a_copy_is_found_though_its_inode_was_that_of_a_file_that_is_gone(registry: Registry, tmp_path: Path) -> None:
    """ext4 gives an inode to somebody else as soon as nobody has the file open."""
    log, copy = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(LINES)
    origin = origin_at(tmp_path)
    tailed = begun(registry, origin, log, len(LINES))
    (tmp_path / "former.log").write_bytes(b"another one\n")
    former = begun(registry, origin, tmp_path / "former.log", 0)
    registry.files.release(former)
    copy.write_bytes(LINES)
    inode = copy.stat().st_ino
    former.identity = FileId(former.identity.device, inode, former.identity.birth_ns)
    registry.by_identity[former.identity] = former
    os.truncate(log, 0)
    registry.succeed(tailed)
    assert follow_rest(registry, tailed)
    assert tailed.path == str(copy)


def test_a_copy_is_one_though_its_original_was_moved_aside_before_it_was_found(
    registry: Registry, tmp_path: Path
) -> None:
    """A scan comes to the log's new file before it comes to the copy."""
    log, copy, moved = tmp_path / "a.log", tmp_path / "a.log.1", tmp_path / "a.log.2"
    log.write_bytes(LINES)
    origin = origin_at(tmp_path)
    begun(registry, origin, log, len(LINES))
    copy.write_bytes(LINES)
    log.write_bytes(b"what came after it\n")
    log.rename(moved)
    log.write_bytes(b"and the next one\n")
    registry.displace(str(log))
    begun(registry, origin, log, 0)
    assert suspected(registry, origin, copy)
