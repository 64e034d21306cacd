"""When an output is down or slow, or a file is about to be lost, blocks go to the spool: same id, same bytes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from hostagent.clock import Clock
from hostagent.config.model import SpoolConfig
from hostagent.deliver.breaker import OPEN_AFTER_FAILURES
from hostagent.errors import PermanentError, StateError, TemporaryError
from hostagent.model import Block, Delivery, FileId, Fingerprint, Verdict
from hostagent.state.checkpoint import Checkpoint, FileRow
from hostagent.state.database.listing import SpoolChange
from hostagent.state.dead_letters import DeadLetters
from hostagent.state.letters import DEAD_LETTERS_DIRECTORY, read_entries, read_records
from hostagent.state.spool.spool import Spool
from tests.deliver.stage import ScriptedOutput, Stage
from tests.support.directories import small_disk
from tests.support.waiting import wait_for


class Backend:
    """An output that can be switched off, and that can hold a request until it is let go."""

    def __init__(self) -> None:
        self.down = False
        self.gate = threading.Event()
        self.gate.set()
        self.output = ScriptedOutput(self._answer)

    def _answer(self, _delivery: Delivery) -> Verdict:
        self.gate.wait(20)
        if self.down:
            raise TemporaryError("down")
        return Verdict()

    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.output.acked]


class FailingJournal:
    """The checkpoint until it is broken; from then on every commit is refused, or those that say what is spooled."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.broken = False
        self.spools = True
        self.refused = 0
        self._checkpoint = checkpoint

    def commit(self, begun: Sequence[Block], acked: Sequence[Block], spool: SpoolChange | None = None) -> None:
        if self.broken or not (self.spools or spool is None):
            self.refused += 1
            raise StateError("cut off")
        self._checkpoint.commit(begun, acked, spool)


class Disk:
    """A data directory, and what is opened in it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.config = SpoolConfig(**({"reserve_bytes": 0} | options))  # type: ignore[arg-type]
        self.checkpoint = Checkpoint.open(folder, Clock())
        self.spool = self.open_spool()

    def open_spool(self) -> Spool:
        return Spool.open(self.folder, "main", self.config, Clock(), self.checkpoint)

    def close(self) -> None:
        self.spool.close()
        self.checkpoint.close()

    def position(self, file: int) -> int:
        rows = {row.id: row for row in self.checkpoint.files()}
        found = rows[file].positions.get("main")
        return found.offset if found else 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "data")
    row = FileRow(
        id=0,
        identity=FileId(1, 2, 3),
        generation=0,
        fingerprint=Fingerprint(0, b""),
        path="/var/log/a.log",
        target="t",
        source="s",
        tags={},
        seen_ns=1,
        gone_ns=None,
        positions={},
    )
    assert disk.checkpoint.add_files([row]) == [1]
    yield disk
    disk.close()


def start(disk: Disk, backend: Backend, **options: object) -> Stage:
    stage = Stage(backend.output, spool=disk.spool, journal=disk.checkpoint, compression="zstd", **options)  # type: ignore[arg-type]
    stage.lane.start()
    return stage


def fill(stage: Stage, numbers: range) -> None:
    for number in numbers:
        wait_for(stage.lane.room, "room")
        stage.block(b"line %04d" % number)


def until_spooling(stage: Stage, backend: Backend) -> None:
    """Let it fail so often that it counts as down."""
    for failures in range(1, OPEN_AFTER_FAILURES + 1):
        seen = len(backend.output.seen)
        stage.lane.nudge()
        wait_for(lambda seen=seen: len(backend.output.seen) > seen, f"try {failures}")  # type: ignore[misc]
    wait_for(lambda: stage.lane.status().state == "spooling", "spooling")


def lines(numbers: range) -> list[bytes]:
    return [b"line %04d\n" % number for number in numbers]


def texts(backend: Backend) -> list[bytes]:
    return [zstandard.decompress(body) for body in backend.bodies()]


def test_a_healthy_output_has_no_spool_on_disk(disk: Disk) -> None:
    backend = Backend()
    stage = start(disk, backend)
    fill(stage, range(30))
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert not (disk.folder / "spool").exists()
    assert stage.lane.status().counters.spooled == 0


def test_while_an_output_is_down_reading_goes_on_and_all_arrives_in_order_when_it_is_back(disk: Disk) -> None:
    backend = Backend()
    stage = start(disk, backend)
    fill(stage, range(3))
    wait_for(stage.lane.idle, "idle")
    backend.down = True
    stage.block(b"line 0003")
    until_spooling(stage, backend)
    fill(stage, range(4, 40))
    wait_for(lambda: len(stage.acked) == 40, "acks out of the spool")
    assert disk.position(1) == 40 * 10
    assert disk.checkpoint.inflight("main") == []
    assert stage.lane.status().spool.blocks == 37
    assert stage.lane.status().last_error == "down"
    assert not stage.lane.idle()

    backend.down = False
    stage.lane.nudge()
    fill(stage, range(40, 60))
    wait_for(stage.lane.idle, "idle")
    assert texts(backend) == lines(range(60))
    wait_for(lambda: stage.lane.status().state == "ok", "ok")
    assert stage.lane.status().spool.blocks == 0
    assert [block.id for block in stage.acked] == [delivery.id for delivery in backend.output.acked]
    assert stage.lane.status().counters.records == 60
    assert stage.lane.status().counters.raw_bytes == 600

    direct = stage.lane.status().counters.spooled
    fill(stage, range(60, 70))
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert stage.lane.status().counters.spooled == direct, "the direct way is open again"


def test_a_reader_that_is_always_ahead_does_not_keep_the_spool_from_getting_empty(disk: Disk) -> None:
    backend = Backend()
    stage = start(disk, backend)
    backend.down = True
    stage.block(b"line 0000")
    until_spooling(stage, backend)
    fill(stage, range(1, 20))
    wait_for(lambda: stage.lane.status().spool.blocks == 20, "everything to be spooled")
    all_read = threading.Event()
    take = backend.output.answer

    def answer_when_memory_is_full(delivery: Delivery) -> Verdict:
        wait_for(lambda: all_read.is_set() or not stage.lane.room(), "the reader to be ahead")
        return take(delivery)

    backend.output.answer = answer_when_memory_is_full
    backend.down = False
    stage.lane.nudge()
    fill(stage, range(20, 220))
    all_read.set()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(220))
    assert stage.lane.status().counters.spooled < 40


def test_a_sender_that_can_not_even_spool_goes_on_when_it_can(disk: Disk) -> None:
    """Where there is no memory to make a delivery there is none to spool it either."""
    backend = Backend()
    backend.down = True
    stage = start(disk, backend)
    fill(stage, range(1))
    until_spooling(stage, backend)
    stage.encoder.fail = 3
    fill(stage, range(1, 3))
    wait_for(lambda: not stage.encoder.fail or not stage.lane.alive, "the failures")
    backend.down = False

    def idle() -> bool:
        stage.lane.nudge()
        return stage.lane.idle()

    wait_for(idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(3))


def test_what_comes_while_an_unreadable_spool_is_given_up_is_delivered(disk: Disk) -> None:
    backend = Backend()
    backend.down = True
    stage = start(disk, backend)
    fill(stage, range(1))
    until_spooling(stage, backend)
    stage.end(0.0)
    disk.spool = disk.open_spool()
    (segment,) = disk.spool.directory.glob("*.seg")
    segment.unlink()
    segment.mkdir()  # every read of it is an error
    backend.down = False
    again = start(disk, backend)
    wait_for(lambda: again.lane.status().last_error, "the first try to read")
    again.block(b"line 0001")
    wait_for(lambda: texts(backend) == [b"line 0001\n"], "the new line")
    again.end()


def test_the_spool_is_delivered_first_after_a_restart_under_the_same_ids(disk: Disk) -> None:
    backend = Backend()
    backend.down = True
    stage = start(disk, backend)
    fill(stage, range(1))
    until_spooling(stage, backend)
    fill(stage, range(1, 10))
    wait_for(lambda: len(stage.acked) == 10, "acks out of the spool")
    stage.end()
    tried = {delivery.id: delivery.body for delivery in backend.output.seen}

    disk.spool = disk.open_spool()
    again = Backend()
    stage = start(disk, again)
    fill(stage, range(10, 15))
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(again) == lines(range(15))
    first = again.output.acked[0]
    assert tried[first.id] == first.body
    assert first.block == first.id


def test_a_crash_between_the_spool_and_the_commit_repeats_nothing(disk: Disk) -> None:
    backend = Backend()
    backend.down = True
    journal = FailingJournal(disk.checkpoint)
    stage = Stage(backend.output, spool=disk.spool, journal=journal)
    stage.lane.start()
    stage.block(b"line 0000")
    wait_for(lambda: backend.output.seen, "a try")
    journal.broken = True
    until_spooling(stage, backend)
    stage.end(deadline_s=0.1)
    assert [block.id for block in disk.checkpoint.inflight("main")] == [backend.output.seen[0].id]
    assert disk.position(1) == 0

    disk.spool = disk.open_spool()
    assert disk.checkpoint.inflight("main") == []
    assert disk.position(1) == 10
    assert [header.id for header in disk.spool.contents()] == [backend.output.seen[0].id]


def test_after_such_a_crash_blocks_keep_their_ids_even_if_the_spool_can_not_be_opened(disk: Disk) -> None:
    """Then they are cut again from the rows of what is in flight, and come a second time when the spool is there."""
    backend = Backend()
    journal = FailingJournal(disk.checkpoint)
    stage = Stage(backend.output, spool=disk.spool, journal=journal)
    stage.lane.start()
    backend.down = True
    stage.block(b"line 0000")
    until_spooling(stage, backend)
    journal.spools = False
    stage.block(b"line 0001")
    stage.block(b"line 0002")
    wait_for(lambda: len(list(disk.spool.contents())) == 3, "all to be spooled")
    spooled = [header.id for header in disk.spool.contents()]
    stage.end(deadline_s=0.1)
    assert disk.position(1) == 10
    assert [block.id for block in disk.checkpoint.inflight("main")] == spooled[1:]


def test_while_no_block_can_be_put_in_flight_only_those_of_files_about_to_be_lost_are_spooled(disk: Disk) -> None:
    """Blocks that come second to nothing in the database would get other ids after a crash."""
    backend = Backend()
    journal = FailingJournal(disk.checkpoint)
    stage = Stage(backend.output, spool=disk.spool, journal=journal, compression="zstd")
    stage.lane.start()
    backend.down = True
    stage.block(b"line 0000")
    until_spooling(stage, backend)
    journal.broken = True
    refused = journal.refused
    stage.block(b"line 0001")
    wait_for(lambda: journal.refused > refused + 1, "it to be tried")
    assert len(list(disk.spool.contents())) == 1
    assert stage.lane.spool_now((1,))
    assert len(list(disk.spool.contents())) == 2
    journal.broken = False
    stage.block(b"line 0002")
    wait_for(lambda: len(list(disk.spool.contents())) == 3, "the last one to be spooled")
    backend.down = False
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(3))


def test_blocks_of_a_file_about_to_be_lost_are_spooled_at_once_even_while_one_is_being_sent(disk: Disk) -> None:
    backend = Backend()
    backend.gate.clear()
    stage = start(disk, backend)
    fill(stage, range(3))
    wait_for(lambda: backend.output.seen, "the first request")
    stage.add(b"line 0003")
    assert stage.lane.spool_now((1,))
    assert next(iter(disk.spool.contents())).id == backend.output.seen[0].id
    assert len(list(disk.spool.contents())) == 4

    backend.gate.set()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(4)), "each once, also the one that was on its way"
    assert disk.position(1) == 40


def test_files_that_are_not_in_memory_need_no_spool(disk: Disk) -> None:
    backend = Backend()
    backend.gate.clear()
    stage = start(disk, backend)
    fill(stage, range(2))
    assert stage.lane.spool_now((77,))
    assert not (disk.folder / "spool").exists()
    backend.gate.set()
    stage.end()


def test_a_full_spool_that_blocks_gives_no_room_and_loses_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "data", max_bytes=2000)
    backend = Backend()
    backend.down = True
    stage = start(disk, backend)
    stage.block(b"line 0000")
    until_spooling(stage, backend)
    number = 1

    def no_more_room() -> bool:
        nonlocal number
        full = bool(stage.lane.status().spool_fault)  # asked first: what goes to the spool meanwhile makes room
        if stage.lane.room():
            stage.block(b"line %04d" % number)
            number += 1
            return False
        return full

    wait_for(no_more_room, "the end of the spool")
    assert not stage.lane.spool_now((1,))
    assert stage.lane.status().spool.blocks == number - 4
    assert [notice.subject for notice in stage.lane.notices()] == ["spool main", "output main"]
    assert disk.checkpoint.losses() == []

    backend.down = False
    stage.lane.nudge()
    fill(stage, range(number, number + 5))
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(number + 5))
    disk.close()


@pytest.mark.parametrize("max_mib, line_bytes", [(3, 500_000), (2, 700_000)])
def test_a_full_spool_that_drops_the_oldest_says_what_it_dropped(tmp_path: Path, max_mib: int, line_bytes: int) -> None:
    disk = Disk(tmp_path / "data", max_bytes=max_mib * 1024 * 1024, when_full="drop_oldest")
    backend = Backend()
    backend.down = True
    stage = Stage(backend.output, spool=disk.spool, journal=disk.checkpoint, max_block_bytes=1 << 20)
    stage.lane.start()
    stage.block(b"line 0000")
    until_spooling(stage, backend)
    filler = b"x" * line_bytes
    for _ in range(20):
        wait_for(stage.lane.room, "room")
        stage.block(filler)
    wait_for(disk.checkpoint.losses, "a loss")
    wait_for(lambda: len(stage.acked) == 21, "acks out of the spool")
    backend.down = False
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert backend.bodies()[0] == b"line 0000\n", "the block on its way was not dropped"
    losses = disk.checkpoint.losses()
    assert {loss.reason for loss in losses} == {"spool_dropped"}
    lost = sum((loss.end or 0) - loss.start for loss in losses)
    arrived = sum(len(body) for body in backend.bodies())
    assert arrived + lost == 10 + 20 * (line_bytes + 1)
    disk.close()


@pytest.fixture(name="small_disk")
def small_disk_mounted(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as disk:
        yield disk


@pytest.mark.requires(root=True, tools=("mount",))
def test_a_full_disk_under_the_spool_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "data", Clock())
    spool = Spool.open(small_disk, "main", SpoolConfig(reserve_bytes=0), Clock(), checkpoint)
    ballast = small_disk / "ballast"
    backend = Backend()
    backend.down = True
    stage = Stage(backend.output, spool=spool, journal=checkpoint, max_block_bytes=1 << 20)
    stage.lane.start()
    stage.block(b"0" * 99_999)
    until_spooling(stage, backend)
    ballast.write_bytes(b"x" * (1 << 19))
    number = 1

    def no_more_room() -> bool:
        nonlocal number
        full = bool(stage.lane.status().spool_fault)
        if stage.lane.room():
            stage.block(b"%d" % (number % 10) * 99_999)
            number += 1
            return False
        return full

    wait_for(no_more_room, "a full disk")
    assert stage.lane.status().state == "spooling"
    ballast.unlink()
    backend.down = False
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    expected = [b"0" * 99_999 + b"\n", *(b"%d" % (one % 10) * 99_999 + b"\n" for one in range(1, number))]
    assert backend.bodies() == expected
    checkpoint.close()


def test_a_stop_while_the_output_is_down_leaves_everything_in_the_spool(disk: Disk) -> None:
    backend = Backend()
    backend.down = True
    stage = start(disk, backend)
    fill(stage, range(4))
    wait_for(lambda: backend.output.seen, "a try")
    stage.end(deadline_s=20.0)
    assert disk.position(1) == 40
    assert disk.checkpoint.inflight("main") == []
    disk.spool = disk.open_spool()
    assert disk.spool.stats().blocks == 4


class SkewedClock(Clock):
    """The real clock, put forward by hand."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


def test_an_output_slower_than_its_input_is_taken_from_behind_by_the_spool(disk: Disk) -> None:
    backend = Backend()
    backend.gate.clear()
    clock = SkewedClock()
    stage = start(disk, backend, clock=clock)
    fill(stage, range(4))
    wait_for(lambda: backend.output.seen, "the first request")
    assert not stage.lane.room()
    stage.block(b"line 0004")  # the one part that had been let in before
    clock.ahead_s = 30.0
    backend.gate.set()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert stage.lane.status().counters.spooled > 0
    assert texts(backend) == lines(range(5))


def test_refused_records_are_kept_with_their_reason(disk: Disk) -> None:
    def refuse(_delivery: Delivery) -> Verdict:
        raise PermanentError("400 not like this")

    letters = DeadLetters(disk.folder, Clock(), disk.checkpoint.add_losses)
    letters.bound("main", 1 << 20)
    stage = Stage(ScriptedOutput(refuse), spool=disk.spool, journal=disk.checkpoint, letters=letters)
    stage.lane.start()
    stage.block(b"one", b"two")
    wait_for(stage.lane.idle, "idle")
    stage.end()
    letters.close()
    folder = disk.folder / DEAD_LETTERS_DIRECTORY / "main"
    (entry,) = read_entries(folder)
    assert read_records(folder, entry.id) == [b"one\n", b"two\n"]
    assert entry.header.reasons == ("400 not like this",)
    assert entry.header.block == stage.acked[0].id
    assert disk.position(1) == 8


def test_what_is_refused_keeps_its_origin_when_its_spool_is_removed_meanwhile(disk: Disk) -> None:
    """Another block is the spool's first by then."""
    gate = threading.Event()

    def refuse_the_first(delivery: Delivery) -> Verdict:
        gate.wait(20)
        if delivery.id == output.seen[0].id:
            raise PermanentError("400 not like this")
        return Verdict()

    output = ScriptedOutput(refuse_the_first)
    stage = Stage(output, spool=disk.spool, journal=disk.checkpoint)
    stage.lane.start()
    stage.block(b"line 0000")
    wait_for(lambda: output.seen, "the first request")
    assert stage.lane.spool_now((1,))
    shutil.rmtree(disk.spool.directory)
    stage.block(b"line 0001")
    assert stage.lane.spool_now((1,))
    gate.set()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert [part.ranges for part in stage.letters.parts] == [((1, 0, 10),)]


def test_delivery_and_securing_at_the_same_time_deliver_everything_once(disk: Disk) -> None:
    """The reader secures again and again while the sender sends: whatever they meet at, order and count hold."""
    backend = Backend()
    stage = start(disk, backend)
    for number in range(600):
        wait_for(stage.lane.room, "room")
        stage.block(b"line %04d" % number)
        if number % 3 == 0:
            assert stage.lane.spool_now((1,))
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert texts(backend) == lines(range(600))
    assert disk.position(1) == 6000
    assert disk.checkpoint.inflight("main") == []
    assert stage.lane.status().counters.crashes == 0
