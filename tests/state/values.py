"""Sample files and blocks for the tests of the state folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hostagent.clock import Clock
from hostagent.config.model import SpoolConfig
from hostagent.model import Block, Delivery, FileId, Fingerprint, Loss, Part, Range
from hostagent.state.checkpoint import Checkpoint, FileRow
from hostagent.state.database.kinship import Kinship
from hostagent.state.database.ledger import LossReason
from hostagent.state.spool.spooled import Place, SpoolHeader, decode_header, encode_block, losses_in, merge

ANCHOR = b"\xa5" * 16


class HandClock(Clock):
    """A clock that moves only when a test turns it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int((1_800_000_000 + self.now_s) * 1_000_000_000)


def file_row(path: str = "/var/log/a.log", inode: int = 1, **fields: object) -> FileRow:
    values: dict[str, object] = {
        "identity": FileId(7, inode, 5),
        "fingerprint": Fingerprint(3, b"abc"),
        "path": path,
        "target": "files:/var/log/*.log",
        "source": "nginx",
        **fields,
    }
    return FileRow(**values)  # type: ignore[arg-type]


def part(file: int, start: int, end: int, source: str = "nginx") -> Part:
    return Part((Range(file, start, end, ANCHOR),), "chain", source, b"x" * 10, 1, end - start)


def block(name: str, *parts: Part, output: str = "main") -> Block:
    return Block(name, output, 123, parts)


def offsets(checkpoint: Checkpoint) -> dict[tuple[int, str], int]:
    """(file, output) → committed offset."""
    return {
        (row.id, output): position.offset for row in checkpoint.files() for output, position in row.positions.items()
    }


def flip(path: Path, offset: int, mask: int = 0x40) -> None:
    """Turn one bit of a file, as a failing disk would."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ mask]))


def delivery(name: str, body: bytes = b"body") -> Delivery:
    return Delivery(name, body, "application/x-ndjson", "zstd", 3, 123, name)


def header_of(held: Block) -> SpoolHeader:
    """What the spool says about a block."""
    return decode_header(encode_block(held, delivery(held.id), 1))


def spool_config(**fields: object) -> SpoolConfig:
    return SpoolConfig(**{"max_bytes": 64 * 1024 * 1024, "reserve_bytes": 0, **fields})  # type: ignore[arg-type]


class Losses(list[Loss]):
    """What a spool gave up: a record that knows nothing of its own, as a database that is younger than the spool."""

    def kinship(self, _output: str, _runs: Sequence[str], _known: Place) -> Kinship:
        return Kinship.SAME

    def reconcile_spool(
        self,
        _output: str,
        held: Iterable[tuple[Place, SpoolHeader]],
        _drained: tuple[Place, Place],
        _kin: Kinship = Kinship.SAME,
        _run: str = "",
    ) -> list[Place]:
        for _ in held:
            pass
        return []

    def lose_spooled(self, _output: str, _where: tuple[Place, Place], _reason: LossReason) -> list[Place]:
        return []

    def note_drained(self, _output: str, _head: Place) -> None:
        pass

    def listed_up_to(self, _output: str) -> dict[int, int]:
        return {}

    def note_listed(self, _output: str, _ends: Mapping[int, int]) -> None:
        pass

    def lose_unlisted(self, output: str, headers: Sequence[SpoolHeader], reason: LossReason) -> None:
        self.add_losses(merge([one for header in headers for one in losses_in(header.parts, output, reason, 0)]))

    def add_losses(self, losses: Sequence[Loss]) -> None:
        self.extend(loss for loss in losses if loss not in self)

    def spans(self) -> list[tuple[int, int, int | None, str]]:
        return [(loss.file, loss.start, loss.end, loss.reason) for loss in self]
