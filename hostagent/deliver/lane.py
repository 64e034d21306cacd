"""All of one output as the reader sees it: room for more, the open block, and what has become of the blocks cut.

Owns the seam between the reader's thread, which alone calls it, and the sender's thread behind it. It must not wait:
where there is no room it says so, and the files are the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from hostagent.clock import Clock
from hostagent.deliver.again import Again
from hostagent.deliver.backlog import Backlog
from hostagent.deliver.blocks import BlockBuilder
from hostagent.deliver.compress import Compressor
from hostagent.deliver.credits import Credits
from hostagent.deliver.late_spool import LateSpool
from hostagent.deliver.pieces import delivery_of_records
from hostagent.deliver.sender import Sender
from hostagent.deliver.status import Condition, Counters, LaneStatus
from hostagent.deliver.transfer import DeadLetterBox, Divisions
from hostagent.deliver.waiting import Journal
from hostagent.hookspecs import Encoder, Notice, Output
from hostagent.model import Block, Delivery, Part
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.tally import SpoolStats

# Enough to keep the sender busy while the reader gathers the next; more would only be memory.
MAX_QUEUED_BLOCKS = 4


class Lane:
    """One output's builder, queue and sender. Lanes with equal `encoder_key` may share payloads.

    `on_room()` and `on_acked(block)` are called in the sender's thread: the first when a `room` that was refused is
    there again, the second after the commit that moved the block's positions.
    """

    def __init__(
        self,
        *,
        name: str,
        encoder: Encoder,
        encoder_key: str,
        output: Output,
        make_compressor: Callable[[], Compressor],
        journal: Journal,
        epoch: str,
        spool: Spool | LateSpool | None,
        dead_letters: DeadLetterBox,
        divisions: Divisions,
        credits: Credits,  # noqa: A002 - the pool's name everywhere else
        clock: Clock,
        max_block_bytes: int,
        max_wait_s: float,
        on_room: Callable[[], None],
        on_acked: Callable[[Block], None],
    ) -> None:
        self.name = name
        self.encoder = encoder
        self.encoder_key = encoder_key
        self._clock = clock
        self._make_compressor = make_compressor
        self._credits = credits
        self._on_room = on_room
        self._on_acked = on_acked
        self._builder = BlockBuilder(
            output=name, epoch=epoch, encoder_key=encoder_key, max_bytes=max_block_bytes, max_wait_s=max_wait_s
        )
        self._stopping = False
        self._counters = Counters()
        self._condition = Condition(clock)
        self._backlog = Backlog(
            output=name,
            encoder=encoder,
            make_compressor=make_compressor,
            journal=journal,
            spool=spool,
            clock=clock,
            counters=self._counters,
            max_blocks=MAX_QUEUED_BLOCKS,
            on_finished=self._finished,
            on_acked=self._acked,
        )
        self._acked_blocks = 0
        self._finished_bytes = 0
        self._sender = Sender(
            name=name,
            backlog=self._backlog,
            output=output,
            encoder=encoder,
            compressor=make_compressor(),
            dead_letters=dead_letters,
            divisions=divisions,
            clock=clock,
            counters=self._counters,
            condition=self._condition,
        )

    def room(self) -> bool:
        """Whether the reader may add another part now; after a "no", `on_room` says when to ask again."""
        if self._stopping or not self._backlog.room():
            return False
        if self._credits.room(self.name):
            return True
        if not self._backlog.waiting:
            self.flush()  # what is open can't grow, so it goes now and its credits come back soonest
        return False

    def observed_ns(self) -> int:
        """The wall time to encode the next part with: that of the open block, which this opens if need be."""
        return self._builder.open(self._clock.wall_ns(), self._clock.monotonic_s())

    def add(self, part: Part) -> None:
        """Add a part that was encoded with `observed_ns`; cuts the block when that fills it."""
        self._credits.take(self.name, len(part.payload))
        block = self._builder.add(part)
        if block is not None:
            self._put(block)

    def flush_due(self, now_s: float) -> float | None:
        """Cut the open block when it is due; seconds until then, None when none is open."""
        due_s = self._builder.due_in_s(now_s)
        if due_s == 0.0:
            self.flush()
            return None
        return due_s

    def flush(self) -> None:
        """Cut the open block now."""
        block = self._builder.cut()
        if block is not None:
            self._put(block)

    def spool_now(self, files: Collection[int]) -> bool:
        """Bring blocks with ranges of these files where no crash can lose them; True when all of them are there.

        False when the spool has no room or its disk refuses: the sender goes on trying, and sends them meanwhile.
        """
        self.flush()
        return self._backlog.secure(files)

    def offer_resumed(self, block: Block) -> None:
        """Queue a block cut again from its in-flight row; at start only, in cut order, before anything new."""
        self._credits.take(self.name, block.encoded_bytes)
        self._put(block, durable=True)

    def idle(self) -> bool:
        """Whether nothing is open, queued, unacked or spooled."""
        everything_acked = not self._builder.has_parts and self._counters.blocks_cut == self._acked_blocks
        return everything_acked and not self._backlog.spooling

    def start(self) -> None:
        """Begin to send."""
        self._sender.start()

    def stop(self, deadline_s: float) -> None:
        """Cut what is open and finish what can be finished until `deadline_s` (monotonic); `join` waits for the end."""
        self.flush()
        self._stopping = True
        self._sender.stop(deadline_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the sender's end; False when it is still busy in its output. In-flight rows make leaving it safe."""
        return self._sender.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the sender's thread runs, or has not been started yet."""
        return self._sender.alive

    @property
    def gone(self) -> bool:
        """Whether the output can't work any more in this process; with all outputs gone there is nothing to run for."""
        return self._sender.gone

    def nudge(self) -> None:
        """End a back-off early: the network has changed, or somebody has mended something. From any thread."""
        self._sender.nudge()

    def send_again(self, source: Iterator[Again]) -> None:
        """Send deliveries that were given up once, between what is due; from any thread."""
        self._sender.send_again(source)

    def delivery_of(self, id_: str, records: list[bytes], observed_ns: int) -> Delivery:
        """A delivery of records that this output's encoder has made before; from any thread."""
        return delivery_of_records(id_, records, observed_ns, self.encoder, self._make_compressor())

    def status(self) -> LaneStatus:
        """A snapshot for `status` and the metrics; from any thread."""
        state, since_ns = self._condition.state
        error, error_ns = self._condition.error
        counters = self._counters
        spool = self._backlog.spool
        return LaneStatus(
            name=self.name,
            state=state,
            since_ns=since_ns,
            last_error=error,
            last_error_ns=error_ns,
            queued_blocks=self._backlog.waiting,
            unacked_blocks=counters.blocks_cut - self._acked_blocks,
            unsent_bytes=counters.encoded_bytes_cut - self._finished_bytes,
            spool=spool.stats() if spool is not None else SpoolStats(),
            spool_fault=self._backlog.spool_fault or (spool.full if spool is not None else ""),
            spool_usable=spool is not None and not self._backlog.spool_fault,
            counters=counters,
        )

    def notices(self) -> list[Notice]:
        """What an operator should know about this output and its spool; from any thread."""
        now = self._spool_notices()
        if self._sender.failing:
            waiting = "nothing is lost, delivery goes on by itself when it works again"
            now.append(Notice(f"output {self.name}", self._condition.error[0], waiting))
        return now

    def _spool_notices(self) -> list[Notice]:
        spool, late, fault = self._backlog.spool, self._backlog.late_spool, self._backlog.spool_fault
        if spool is None:
            return [late.notice()] if late is not None else []
        hint = "what is in memory waits there and reading waits with it; nothing is lost"
        now = [Notice(f"spool {self.name}", fault, hint)] if fault else []
        return [*spool.notices(), *now]

    def _put(self, block: Block, *, durable: bool = False) -> None:
        counters = self._counters
        counters.blocks_cut += 1
        counters.records_cut += block.records
        counters.raw_bytes_cut += block.raw_bytes
        counters.encoded_bytes_cut += block.encoded_bytes
        self._backlog.put(block, durable=durable)

    def _finished(self, block: Block) -> None:
        """Under the backlog's lock: the block is delivered or spooled, its memory is free again."""
        self._finished_bytes += block.encoded_bytes
        starved = self._backlog.take_starved()
        if self._credits.give(self.name, block.encoded_bytes) or starved:
            self._on_room()

    def _acked(self, block: Block) -> None:
        """In the sender's thread: the block's positions have moved."""
        self._acked_blocks += 1
        self._on_acked(block)
