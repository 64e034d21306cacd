"""What the sender promises: durable before sent, in order, acked once it is delivered, and nothing lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hostagent.clock import Clock
from hostagent.config.model import SpoolConfig
from hostagent.deliver.backlog import SPOOL_DELAY_S
from hostagent.deliver.breaker import OPEN_AFTER_S
from hostagent.deliver.credits import Credits
from hostagent.errors import PermanentError, TemporaryError
from hostagent.model import Block, Delivery, Outcome, Verdict
from hostagent.state.spool.spool import Spool
from tests.deliver.stage import LineEncoder, ScriptedOutput, Stage, part
from tests.state.values import HandClock, Losses
from tests.support.waiting import wait_for


def counted(stage: Stage) -> tuple[int, int, int, int]:
    """Blocks, records and bytes of log that count as delivered, and dead letters."""
    counters = stage.lane.status().counters
    return counters.blocks, counters.records, counters.raw_bytes, counters.dead_letters


def test_blocks_arrive_in_order_and_are_acked_in_order() -> None:
    output = ScriptedOutput()
    stage = Stage(output)
    stage.lane.start()
    for number in range(50):
        wait_for(stage.lane.room, "room")
        stage.block(b"line %d" % number)
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert [delivery.body for delivery in output.seen] == [b"line %d\n" % number for number in range(50)]
    assert stage.journal.acked() == [delivery.id for delivery in output.seen]
    assert [block.id for block in stage.acked] == stage.journal.acked()
    assert output.closed


def test_nothing_is_sent_before_its_row_is_durable_nor_acked_before_it_is_sent() -> None:
    stage: Stage

    def answer(delivery: Delivery) -> Verdict:
        assert ("begun", delivery.id) in stage.journal.log
        assert ("acked", delivery.id) not in stage.journal.log
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    for number in range(4):
        stage.block(b"%d" % number)
    stage.lane.start()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert stage.lane.status().counters.crashes == 0


def test_acks_travel_with_the_next_beginning_but_never_wait_alone() -> None:
    stage = Stage(ScriptedOutput())
    for number in range(4):
        stage.block(b"%d" % number)
    stage.lane.start()
    wait_for(stage.lane.idle, "idle")

    assert stage.journal.commits == 2
    stage.end()


def test_a_failing_output_gets_the_same_bytes_under_the_same_id_until_it_takes_them() -> None:
    failures = iter(range(3))

    def answer(_delivery: Delivery) -> Verdict:
        if next(failures, None) is not None:
            raise TemporaryError("refused", 0.0)
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output, compression="zstd")
    stage.lane.start()
    stage.block(b"one")
    for tries in range(1, 4):
        wait_for(partial(lambda tries: len(output.seen) >= tries, tries), "a try")
        stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert len({(delivery.id, delivery.body) for delivery in output.seen}) == 1
    assert len(output.acked) == 1
    status = stage.lane.status()
    assert (status.counters.retries, status.last_error) == (3, "refused")


def test_a_refusal_for_good_becomes_dead_letters_and_the_next_block_goes_on() -> None:
    def answer(delivery: Delivery) -> Verdict:
        if delivery.body.startswith(b"bad"):
            raise PermanentError("400 no such field")
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"bad 1", b"bad 2")
    stage.block(b"good")
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert [(record, reason) for _, record, reason in stage.letters.letters] == [
        (b"bad 1\n", "400 no such field"),
        (b"bad 2\n", "400 no such field"),
    ]
    assert [delivery.body for delivery in output.acked] == [b"good\n"]
    assert len(stage.journal.acked()) == 2
    assert counted(stage) == (1, 1, 5, 2)


def test_a_block_that_is_too_large_is_halved_until_it_fits_under_ids_that_follow_from_its_own() -> None:
    def answer(delivery: Delivery) -> Verdict:
        return Verdict(Outcome.TOO_LARGE) if len(delivery.body) > 4 else Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"a", b"b", b"giant", b"d", b"e")
    wait_for(stage.lane.idle, "idle")
    stage.end()

    base = stage.acked[0].id
    taken = [delivery for delivery in output.seen if len(delivery.body) <= 4]
    assert [delivery.body for delivery in taken] == [b"a\nb\n", b"d\ne\n"]
    assert all(delivery.id.startswith(f"{base}.r") for delivery in taken)
    assert len({delivery.id for delivery in output.seen}) == len(output.seen)
    assert [list(delivery.indexes or ()) for delivery in taken] == [[0, 1], [3, 4]]
    assert {delivery.block for delivery in output.seen} == {base}
    assert [record for _, record, _ in stage.letters.letters] == [b"giant\n"]
    assert stage.journal.acked() == [base]


def test_what_is_left_of_a_block_is_divided_under_other_ids_than_the_whole_was() -> None:
    """Halves of the whole may be stored: the same half of less is something else and must not pass for known."""

    def answer(delivery: Delivery) -> Verdict:
        if b"refused" in delivery.body and delivery.records == 1:
            raise PermanentError("no")
        return Verdict(Outcome.TOO_LARGE) if delivery.records > 1 else Verdict()

    gone = part(b"a", b"b", file=1)
    left = part(b"c", b"refused", file=2)
    seen = []
    for parts, indexes in (((gone, left), None), ((left,), (2, 3))):
        output = ScriptedOutput(answer)
        stage = Stage(output)
        stage.lane.offer_resumed(Block("x", "main", 1, parts, indexes))
        stage.lane.start()
        wait_for(stage.lane.idle, "idle")
        stage.end()
        seen.append({delivery.id: delivery.body for delivery in output.seen})
        assert output.seen[0].id == "x"
        assert output.seen[0].incomplete == (indexes is not None)
        assert [letter.ranges for letter in stage.letters.parts] == [(left.ranges[0][:3],)]
    whole, rest = seen
    shared = whole.keys() & rest.keys() - {"x"}
    assert shared, "a record by itself has the same id however it came to be alone"
    assert all(whole[id_] == rest[id_] for id_ in shared)


def test_a_verdict_per_record_retries_these_and_buries_those() -> None:
    def answer(delivery: Delivery) -> Verdict:
        if delivery.records == 4:
            return Verdict(Outcome.PARTIAL, retry=(1, 3), dead=((2, "mapping conflict"),))
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"a", b"b", b"c", b"d")
    wait_for(lambda: stage.lane.status().state == "retrying", "the verdict")
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert output.seen[1].body == b"b\nd\n"
    assert output.seen[1].indexes == (1, 3)
    assert output.seen[1].id != output.seen[0].id
    assert [(record, reason) for _, record, reason in stage.letters.letters] == [(b"c\n", "mapping conflict")]
    assert counted(stage) == (1, 3, 6, 1)


def test_dead_letters_say_which_ranges_they_came_from_however_the_block_was_divided() -> None:
    def answer(delivery: Delivery) -> Verdict:
        if delivery.records > 3:
            return Verdict(Outcome.TOO_LARGE)
        if delivery.records == 3:  # the first half
            return Verdict(Outcome.PARTIAL, dead=((2, "bad"), (0, "bad")))
        raise PermanentError("all bad")

    stage = Stage(ScriptedOutput(answer))
    stage.lane.start()
    stage.lane.observed_ns()
    stage.lane.add(part(b"a", b"b", file=1))
    stage.lane.add(part(b"c", b"d", file=2))
    stage.lane.add(part(b"e", file=3, start=7))
    stage.lane.flush()
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert [(one.ranges, one.refused, one.records) for one in stage.letters.parts] == [
        (((1, 0, 4),), 1, 2),
        (((2, 0, 4),), 1, 2),
        (((2, 0, 4),), 1, 2),
        (((3, 7, 9),), 1, 1),
    ]
    assert counted(stage) == (1, 1, 2, 4)


def test_a_backend_that_asks_for_every_record_again_counts_as_down(tmp_path: Path) -> None:
    clock = HandClock()
    clock.now_s = time.monotonic()  # no time passes: only the number of failures can tell
    busy = True

    def answer(delivery: Delivery) -> Verdict:
        return Verdict(Outcome.PARTIAL, retry=range(delivery.records)) if busy else Verdict()

    output = ScriptedOutput(answer)
    spool = Spool.open(tmp_path, "main", SpoolConfig(reserve_bytes=0), Clock(), Losses())
    stage = Stage(output, spool=spool, clock=clock)
    stage.lane.start()
    stage.block(b"a", b"b")
    for failures in range(1, 6):
        wait_for(partial(lambda failures: len(output.seen) >= failures, failures), "a try")
        stage.lane.nudge()
    clock.now_s += SPOOL_DELAY_S
    wait_for(lambda: stage.lane.status().state == "spooling", "spooling")
    busy = False
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert {delivery.body for delivery in output.seen} == {b"a\nb\n"}
    assert stage.lane.notices() == []


class SleepClock(HandClock):
    """Turned by hand; counts how often somebody has gone to sleep."""

    sleeps = 0

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        self.sleeps += 1
        return super().wait(event, timeout_s)


def test_while_an_output_is_down_blocks_gather_for_the_spool_but_not_for_long(tmp_path: Path) -> None:
    clock = SleepClock()
    clock.now_s = time.monotonic()
    spool = Spool.open(tmp_path, "main", SpoolConfig(reserve_bytes=0), Clock(), Losses())

    def down(_delivery: Delivery) -> Verdict:
        raise TemporaryError("down")

    output = ScriptedOutput(down)
    stage = Stage(output, spool=spool, clock=clock)

    def spooled(blocks: int) -> Callable[[], bool]:
        return lambda: stage.lane.status().counters.spooled == blocks and len(stage.acked) == blocks

    stage.lane.start()
    stage.block(b"0")
    wait_for(lambda: stage.lane.status().state == "retrying", "a failure")
    clock.now_s += OPEN_AFTER_S
    wait_for(spooled(1), "the first block to be spooled")
    commits = stage.journal.commits
    for line in (b"1", b"2", b"3"):
        sleeps = clock.sleeps
        stage.block(line)
        wait_for(partial(lambda sleeps: clock.sleeps > sleeps, sleeps), "the sender to have looked at it")
    wait_for(spooled(4), "what there was room for")
    assert stage.journal.commits - commits == 2, "in flight, then spooled: each once for all three"
    stage.block(b"4")
    clock.now_s += SPOOL_DELAY_S
    wait_for(spooled(5), "the block that is alone")
    stage.end()


def test_while_the_checkpoint_can_not_be_written_nothing_is_sent_and_nothing_is_lost() -> None:
    output = ScriptedOutput()
    stage = Stage(output)
    stage.journal.broken.set()
    stage.lane.start()
    stage.block(b"one")
    wait_for(lambda: stage.journal.refused > 0, "a refused commit")
    assert output.seen == []
    assert stage.lane.status().state == "retrying"
    assert "disk is full" in stage.lane.status().last_error

    stage.journal.broken.clear()
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert [delivery.body for delivery in output.seen] == [b"one\n"]


def test_an_ack_that_can_not_be_stored_is_not_announced_and_not_forgotten() -> None:
    stage: Stage

    def answer(_delivery: Delivery) -> Verdict:
        stage.journal.broken.set()
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"one")
    wait_for(lambda: stage.journal.refused > 0, "a refused commit")
    assert stage.acked == []
    assert not stage.lane.idle()

    stage.journal.broken.clear()
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    assert len(output.seen) == 1
    assert stage.lane.status().state == "ok"
    stage.end()


def test_an_output_that_breaks_unexpectedly_is_seen_and_goes_on_where_it_stood() -> None:
    failures = iter(range(1))

    def answer(_delivery: Delivery) -> Verdict:
        if next(failures, None) is not None:
            raise ZeroDivisionError("surprise")
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"one")
    stage.block(b"two")
    wait_for(lambda: stage.lane.status().counters.crashes == 1, "the crash")
    assert "ZeroDivisionError" in stage.lane.status().last_error
    stage.lane.nudge()
    wait_for(stage.lane.idle, "idle")
    stage.end()
    assert [delivery.body for delivery in output.acked] == [b"one\n", b"two\n"]


def test_resumed_blocks_keep_their_id_and_are_not_begun_twice() -> None:
    output = ScriptedOutput()
    stage = Stage(output)
    resumed = Block("0123", "main", 7, (part(b"again"),))
    stage.lane.offer_resumed(resumed)
    stage.block(b"new")
    stage.lane.start()
    wait_for(stage.lane.idle, "idle")
    stage.end()

    assert (output.seen[0].body, output.seen[0].observed_ns) == (b"again\n", 7)
    assert output.seen[0].id == "0123"
    assert ("begun", "0123") not in stage.journal.log
    assert stage.journal.acked()[0] == "0123"


def test_a_stop_sends_what_is_queued_and_commits_the_last_ack() -> None:
    output = ScriptedOutput()
    stage = Stage(output)
    for number in range(3):
        stage.block(b"%d" % number)
    stage.add(b"open")
    stage.lane.start()
    stage.end()

    assert [delivery.body for delivery in output.acked] == [b"0\n", b"1\n", b"2\n", b"open\n"]
    assert len(stage.journal.acked()) == 4
    assert stage.lane.status().state == "stopped"


def test_a_stop_does_not_wait_longer_for_a_dead_output_than_its_deadline() -> None:
    def answer(_delivery: Delivery) -> Verdict:
        raise TemporaryError("refused", 3600.0)

    output = ScriptedOutput(answer)
    stage = Stage(output)
    stage.lane.start()
    stage.block(b"one")
    wait_for(lambda: output.seen, "a try")
    stage.end(deadline_s=0.05)

    assert stage.journal.acked() == []
    assert ("begun", output.seen[0].id) in stage.journal.log
    assert output.closed


def test_after_the_deadline_of_a_stop_nothing_more_is_sent() -> None:
    gate = threading.Event()

    def answer(_delivery: Delivery) -> Verdict:
        gate.wait(20)
        return Verdict()

    output = ScriptedOutput(answer)
    stage = Stage(output)
    for number in range(3):
        stage.block(b"%d" % number)
    stage.lane.start()
    wait_for(lambda: output.seen, "the first request")
    deadline_s = time.monotonic() + 0.05
    stage.lane.stop(deadline_s)
    wait_for(lambda: time.monotonic() > deadline_s, "the deadline")
    gate.set()
    assert stage.lane.join(20)
    assert len(output.seen) == 1
    assert len(stage.journal.acked()) == 1


def test_a_full_queue_has_no_room_and_says_when_it_has_again() -> None:
    gate = threading.Event()

    def answer(_delivery: Delivery) -> Verdict:
        gate.wait(20)
        return Verdict()

    stage = Stage(ScriptedOutput(answer))
    stage.lane.start()
    for number in range(4):
        assert stage.lane.room()
        stage.block(b"%d" % number)
    assert not stage.lane.room()
    assert stage.rooms == 0
    gate.set()
    wait_for(lambda: stage.rooms > 0, "the call")
    assert stage.lane.room()
    stage.end()


def test_a_stuck_lane_does_not_starve_another() -> None:
    gate = threading.Event()

    def stuck(_delivery: Delivery) -> Verdict:
        gate.wait(20)
        return Verdict()

    pool = Credits(400, 2)
    slow = Stage(ScriptedOutput(stuck), pool=pool, max_block_bytes=10_000, name="slow")
    fast = Stage(ScriptedOutput(), pool=pool, name="fast")
    slow.lane.start()
    fast.lane.start()
    while slow.lane.room():
        slow.add(b"x" * 49)
    assert pool.used_bytes() >= 300
    for number in range(30):
        wait_for(fast.lane.room, "room beside a stuck lane")
        fast.block(b"%d" % number)
    wait_for(fast.lane.idle, "idle beside a stuck lane")
    gate.set()
    slow.end()
    fast.end()
    assert pool.used_bytes() == 0


def test_a_lane_out_of_credits_sends_what_is_open_instead_of_waiting_for_more() -> None:
    output = ScriptedOutput()
    stage = Stage(output, pool=Credits(100, 1), max_block_bytes=10_000)
    stage.lane.start()
    stage.add(b"x" * 120)
    assert not stage.lane.room()
    wait_for(lambda: stage.rooms > 0, "room")
    assert len(output.seen) == 1
    stage.end()


def test_splitting_uses_what_the_encoder_calls_records() -> None:
    assert LineEncoder().split(b"a\nb\n") == [b"a\n", b"b\n"]
