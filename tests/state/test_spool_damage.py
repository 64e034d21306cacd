"""Whatever happens to the spool's files, it opens, gives back what is whole, and names what is not."""

import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.errors import StateError
from hostagent.state.segments.frames import Frame
from hostagent.state.segments.marks import Cursor, Mark
from hostagent.state.segments.survey import scan_segment, segment_at
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.spooled import Place
from tests.state.values import HandClock, Losses, block, delivery, flip, part, spool_config

NAMES = ["b0", "b1", "b2", "b3"]


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    """A folder where fsync costs nothing, for tests that open a spool a thousand times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def fill(data_dir: Path, bodies: list[bytes] | None = None) -> Path:
    """A spool of four blocks with ranges [0,10), [10,20) …, closed; returns its only segment."""
    data_dir.mkdir(exist_ok=True)
    spool = Spool.open(data_dir, "main", spool_config(), HandClock(), Losses())
    for number, name in enumerate(NAMES):
        body = bodies[number] if bodies else f"body of {name}".encode()
        assert spool.append(block(name, part(1, number * 10, number * 10 + 10)), delivery(name, body))
    spool.sync()
    spool.close()
    (segment,) = (data_dir / "spool" / "main").glob("*.seg")
    return segment


def reopen(data_dir: Path, losses: Losses) -> list[str]:
    """What a new agent gets out of the spool, and that it can go on using it."""
    spool = Spool.open(data_dir, "main", spool_config(), HandClock(), losses)
    names = []
    while head := spool.head():
        assert head.delivery.body in {f"body of {head.id}".encode(), b""} or len(head.delivery.body) > 100
        names.append(head.id)
        spool.advance()
    assert spool.stats()[1:5] == (0, 0, 0, None)
    assert spool.append(block("new", part(1, 0, 1)), delivery("new"))
    spool.sync()
    fresh = spool.head()
    assert fresh is not None
    assert fresh.id == "new"
    spool.advance()
    spool.close()
    return names


def frames_of(segment: Path) -> list[tuple[int, int, int]]:
    """(start, payload start, end) of each frame."""
    opened = segment_at(segment)
    return [
        (found.offset, found.payload_offset, found.end)
        for found in scan_segment(opened, 0, opened.size)
        if isinstance(found, Frame)
    ]


def test_every_bit_flip_costs_one_block_and_is_in_the_ledger(memory_dir: Path) -> None:
    segment = fill(memory_dir / "good")
    frames = frames_of(segment)
    for number, (start, payload, end) in enumerate(frames):
        for offset in range(start, end):
            copy = memory_dir / "copy"
            shutil.copytree(memory_dir / "good", copy)
            flip(copy / "spool" / "main" / segment.name, offset, mask=1 << offset % 8)
            losses = Losses()
            assert reopen(copy, losses) == [name for name in NAMES if name != NAMES[number]], f"byte {offset}"
            if offset >= payload:
                assert losses.spans() == [(1, number * 10, number * 10 + 10, "spool_damaged")]
            else:
                assert [(loss.end, loss.reason) for loss in losses] == [(None, "spool_damaged")]
            assert len(os.listdir(copy / "quarantine")) == 1
            shutil.rmtree(copy)


def test_truncation_at_every_byte_keeps_what_is_whole(memory_dir: Path) -> None:
    segment = fill(memory_dir / "good")
    frames = frames_of(segment)
    size = segment.stat().st_size
    for length in range(size):
        copy = memory_dir / "copy"
        shutil.copytree(memory_dir / "good", copy)
        os.truncate(copy / "spool" / "main" / segment.name, length)
        losses = Losses()
        whole = [name for name, (_, _, end) in zip(NAMES, frames, strict=True) if end <= length]
        assert reopen(copy, losses) == whole, f"{length} bytes"
        assert len(losses) >= 1, f"{length} bytes: it was synced, so this is a loss"
        assert {loss.reason for loss in losses} == {"spool_damaged"}
        shutil.rmtree(copy)


@pytest.mark.parametrize("tail", [b"\0", b"HAF\1", b"x" * 5000, bytes(5000)])
def test_a_torn_tail_is_cut_off_and_nobodys_loss(tmp_path: Path, tail: bytes) -> None:
    segment = fill(tmp_path)
    with segment.open("ab") as file:
        file.write(tail)
    losses = Losses()
    assert reopen(tmp_path, losses) == NAMES
    assert losses == []


def test_a_frame_that_was_written_but_not_marked_as_synced_is_kept(tmp_path: Path) -> None:
    segment = fill(tmp_path / "good")
    for _, _, end in frames_of(segment):
        copy = tmp_path / f"copy{end}"
        shutil.copytree(tmp_path / "good", copy)
        folder = copy / "spool" / "main"
        # The mark as it was when the segment had grown to `end`: an old slot written over the newer one.
        cursor = Cursor(folder)
        cursor.write(Mark(1, 0, 1, end))
        cursor.write(Mark(1, 0, 1, end))
        cursor.close()
        (folder / "segments").unlink()
        losses = Losses()
        assert reopen(copy, losses) == NAMES
        assert losses == []


def test_a_lost_mark_makes_blocks_come_again_not_go_missing(tmp_path: Path) -> None:
    fill(tmp_path)
    losses = Losses()
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), losses)
    spool.head()
    spool.advance()
    spool.close()
    for content in (b"", b"\xff" * 128, bytes(128)):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "spool", copy / "spool")
        (copy / "spool" / "main" / "cursor").write_bytes(content)
        assert reopen(copy, losses) == NAMES
        shutil.rmtree(copy)
    assert losses == []


def test_one_damaged_slot_of_the_mark_is_no_matter(tmp_path: Path) -> None:
    fill(tmp_path)
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), Losses())
    spool.head()
    spool.advance()
    spool.head()
    spool.advance()
    spool.close()
    for slot in (0, 1):
        copy = tmp_path / f"copy{slot}"
        shutil.copytree(tmp_path / "spool", copy / "spool")
        flip(copy / "spool" / "main" / "cursor", slot * 64 + 20)
        names = reopen(copy, Losses())
        assert names in (["b1", "b2", "b3"], ["b2", "b3"])


def test_numbers_beyond_all_sense_are_none(tmp_path: Path) -> None:
    """Their checksums are right: somebody has written them so."""
    directory = fill(tmp_path).parent
    entries = b"%d:%d" % (10**24, 10**30)
    (directory / "segments").write_bytes(b"%08x %s\n" % (zlib.crc32(entries), entries))
    cursor = Cursor(directory)
    cursor.write(Mark(2**64 - 1, 0, 2**64 - 1, 2**64 - 1, 2**64 - 1, 0))
    cursor.close()
    losses = Losses()
    assert reopen(tmp_path, losses) == list(NAMES)
    assert losses == []


def test_a_missing_segment_is_in_the_ledger(tmp_path: Path) -> None:
    segment = fill(tmp_path)
    segment.unlink()
    losses = Losses()
    assert reopen(tmp_path, losses) == []
    assert [(loss.end, loss.reason, loss.path) for loss in losses] == [
        (None, "spool_missing", "spool/main/segment 000000000001")
    ]
    again = Losses()
    assert reopen(tmp_path, again) == []
    assert again == []


def put_eight(spool: Spool) -> list[Place]:
    """Four blocks in each of two segments, none of them committed."""
    places = []
    for number in range(8):
        one = block(f"b{number}", part(1, number, number + 1))
        place = spool.append(one, delivery(one.id, os.urandom(300_000)))
        assert place is not None
        places.append(place)
        spool.sync()
    return places


def test_a_segment_removed_while_the_agent_runs_stops_nothing(tmp_path: Path) -> None:
    losses = Losses()
    spool = Spool.open(tmp_path, "main", spool_config(max_bytes=8 * 1024 * 1024), HandClock(), losses)
    places = put_eight(spool)
    segments = sorted((tmp_path / "spool" / "main").glob("*.seg"))
    assert len(segments) == 2
    segments[0].unlink()
    names = []
    while head := spool.head():
        names.append(head.id)
        spool.advance()
    assert names == ["b4", "b5", "b6", "b7"]
    # Nobody has been told that the spool has them: whoever does, says that they are gone.
    assert [spool.gave_up(place) for place in places] == [True] * 4 + [False] * 4
    assert losses == []
    spool.close()


def test_a_segment_that_can_not_be_read_is_given_up_after_some_tries(tmp_path: Path) -> None:
    losses = Losses()
    spool = Spool.open(tmp_path, "main", spool_config(max_bytes=8 * 1024 * 1024), HandClock(), losses)
    places = put_eight(spool)
    first = min((tmp_path / "spool" / "main").glob("*.seg"))
    first.unlink()
    first.mkdir()  # opens, and answers every read with an error
    for _ in range(3):
        assert losses == []
        with pytest.raises(StateError, match="can't read the spool"):
            spool.head()
    head = spool.head()
    assert head is not None
    assert head.id == "b4"
    # Nobody has been told that the spool has them: whoever does, says that they are gone.
    assert [spool.gave_up(place) for place in places] == [True] * 4 + [False] * 4
    assert losses == []
    spool.close()
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), losses)
    assert [header.id for header in spool.contents()] == ["b4", "b5", "b6", "b7"]
    spool.close()


def test_quarantine_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    segment = fill(tmp_path)
    _, payload, _ = frames_of(segment)[0]
    flip(segment, payload)
    (tmp_path / "quarantine").write_text("a file where a folder should be")
    losses = Losses()
    assert reopen(tmp_path, losses) == ["b1", "b2", "b3"]
    assert len(losses) == 1
    assert not segment.exists()


def test_foreign_files_and_other_versions_are_set_aside(tmp_path: Path) -> None:
    segment = fill(tmp_path)
    folder = segment.parent
    (folder / "README").write_text("mine")
    (folder / "subfolder").mkdir()
    newer = bytearray(segment.read_bytes())
    newer[3] = 2
    (folder / "000000000000-00112233445566aa.seg").write_bytes(bytes(newer[:40]))
    (folder / "000000000007-00112233445566aa.seg").write_bytes(b"garbage" * 100)
    (folder / "000000000008-00112233445566aa.seg").write_bytes(b"")
    losses = Losses()
    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), losses)
    messages = " ".join(notice.message for notice in spool.notices())
    assert "README" in messages
    assert "subfolder" in messages
    spool.close()
    assert reopen(tmp_path, losses) == NAMES
    assert (folder / "README").read_text() == "mine"
    assert not (folder / "000000000007-00112233445566aa.seg").exists()


def test_a_segment_of_another_version_goes_to_quarantine(tmp_path: Path) -> None:
    segment = fill(tmp_path)
    data = bytearray(segment.read_bytes())
    for start, _, _ in frames_of(segment):
        data[start + 3] = 9
    segment.write_bytes(bytes(data))
    losses = Losses()
    assert reopen(tmp_path, losses) == []
    assert [(loss.end, loss.reason) for loss in losses] == [(None, "spool_damaged")]
    (kept,) = (tmp_path / "quarantine").iterdir()
    assert kept.read_bytes() == bytes(data)


def test_a_payload_that_imitates_frames_is_not_mistaken_for_one(tmp_path: Path) -> None:
    other = fill(tmp_path / "other").read_bytes()
    segment = fill(tmp_path / "good", bodies=[other, other, other, other])
    start, payload, _ = frames_of(segment)[1]
    flip(segment, start + 9)
    losses = Losses()
    assert reopen(tmp_path / "good", losses) == ["b0", "b2", "b3"]
    assert len(losses) == 1
    assert payload > start


def test_damage_is_reported_once_however_often_the_agent_dies_on_it(tmp_path: Path) -> None:
    segment = fill(tmp_path)
    _, payload, _ = frames_of(segment)[0]
    flip(segment, payload)

    class Refusal(Losses):
        def add_losses(self, _: object) -> None:
            raise StateError("the ledger can't be written")

    spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), Refusal())
    for _ in range(3):
        with pytest.raises(StateError, match="ledger"):
            spool.head()
    spool.close()
    losses = Losses()
    assert reopen(tmp_path, losses) == ["b1", "b2", "b3"]
    assert losses.spans() == [(1, 0, 10, "spool_damaged")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    wounds=st.lists(
        st.tuples(st.sampled_from(["flip", "cut", "zero", "insert", "copy"]), st.floats(0, 1), st.integers(1, 200)),
        min_size=1,
        max_size=4,
    ),
    where=st.sampled_from(["segment", "cursor", "segments"]),
)
def test_no_wound_stops_the_spool_or_changes_a_block(
    tmp_path_factory: pytest.TempPathFactory, wounds: list[tuple[str, float, int]], where: str
) -> None:
    data_dir = tmp_path_factory.mktemp("wounded")
    segment = fill(data_dir)
    path = segment if where == "segment" else segment.with_name(where)
    data = bytearray(path.read_bytes())
    for kind, place, size in wounds:
        at = int(place * len(data))
        if kind == "flip" and at < len(data):
            data[at] ^= size % 255 + 1
        elif kind == "cut":
            del data[at : at + size]
        elif kind == "zero":
            data[at : at + size] = bytes(len(data[at : at + size]))
        elif kind == "insert":
            data[at:at] = os.urandom(size)
        elif kind == "copy":
            data[at:at] = data[:size]
    path.write_bytes(bytes(data))
    losses = Losses()
    names = reopen(data_dir, losses)
    assert set(names) <= set(NAMES)
    if where == "segment" and len({*names}) < len(NAMES):
        assert losses, "a block is gone and nobody said so"
    if where != "segment":
        assert names == NAMES
    for before, after in itertools.pairwise(dict.fromkeys(names)):
        assert before < after
