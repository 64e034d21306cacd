"""The torture's judge: a judge that can't find a planted loss, or that believes any ledger, would pass every agent."""

import contextlib
import gzip
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.generations import Bytes, identity_at, uncovered
from tests.support.lines import read_line
from tests.support.oracle import Oracle
from tests.support.streams import LogStream
from tests.support.writer import Load, Writer
from tests.torture.judge import Judge, Tally

LOST = range(10, 20)


class Case:
    """A log of which ten lines never arrived, and a ledger to be filled."""

    def __init__(self, directory: Path, writer: Writer) -> None:
        self.log = directory / "app000.log"
        self.database = directory / "checkpoint.db"
        self.written = writer.order("pause")
        self.oracle = Oracle()
        self.lines = self.log.read_bytes().splitlines(keepends=True)
        for line in self.lines:
            text = line.decode().rstrip("\n")
            if read_line(text).seq not in LOST:
                self.oracle.take_message(text)
        self.start = sum(map(len, self.lines[: LOST.start]))
        self.end = sum(map(len, self.lines[: LOST.stop]))
        self.judge = Judge(self.database, self.oracle, writer, lambda: False)
        self.tally = Tally("a fault")
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE losses (file, start, end, reason)")
            connection.execute(
                "CREATE TABLE files (id, device, inode, birth_ns, fingerprint_length, fingerprint, path)"
            )
            head = self.log.read_bytes()[:100]
            digest = hashlib.blake2b(head, digest_size=16).digest()
            connection.execute("INSERT INTO files VALUES (7, ?, ?, ?, 100, ?, '')", (*identity_at(self.log), digest))
            connection.commit()

    def say_lost(self, start: int, end: int, file: int = 7) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("INSERT INTO losses VALUES (?, ?, ?, 'said so')", (file, start, end))
            connection.commit()

    def say_unseen(self, file: int, path: bytes) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("INSERT INTO files VALUES (?, 0, 0, 0, 0, x'', ?)", (file, path))
            connection.execute("INSERT INTO losses VALUES (?, 0, -1, 'unseen')", (file,))
            connection.commit()

    def unaccounted(self) -> int:
        self.judge.miss(self.tally, self.written)
        self.judge.read_ledger()
        self.judge.judge()
        return self.tally.unaccounted


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with Writer(Load(str(tmp_path), streams=1, bytes_per_s=1e6)) as writer:
        while min(writer.state().values()) < 50:
            pass
        yield Case(tmp_path, writer)


def test_a_lost_line_that_no_ledger_names_is_unaccounted(case: Case) -> None:
    assert case.unaccounted() == case.end - case.start
    assert case.tally.lost == len(LOST)


def test_a_lost_line_in_the_ledger_is_accounted(case: Case) -> None:
    case.say_lost(case.start, case.end)
    assert case.unaccounted() == 0
    assert case.tally.lost == len(LOST)


@pytest.mark.parametrize("name", ["app000.log", "*"])
def test_lines_of_a_file_that_nobody_could_open_are_accounted_by_its_name(case: Case, name: str) -> None:
    case.say_unseen(8, f"/logs/{name}".encode())
    assert case.unaccounted() == 0
    assert (case.tally.lost, case.tally.unseen) == (len(LOST), len(LOST))


def test_a_file_of_another_name_that_nobody_could_open_accounts_for_nothing(case: Case) -> None:
    case.say_unseen(8, b"/logs/app001.log")
    assert case.unaccounted() == case.end - case.start


def test_a_file_that_was_opened_is_not_one_that_nobody_could_open(case: Case) -> None:
    case.say_unseen(8, b"/logs/app000.log")
    case.say_lost(case.start + 1, case.end)
    assert case.unaccounted() == 1


def test_a_range_that_is_a_byte_short_does_not_do(case: Case) -> None:
    case.say_lost(case.start + 1, case.end)
    assert case.unaccounted() == 1


def test_a_loss_of_unknown_size_accounts_for_what_lies_behind_its_start(case: Case) -> None:
    case.say_lost(case.start + 5, -1)
    assert case.unaccounted() == 5


def test_another_files_loss_accounts_for_nothing(case: Case) -> None:
    with contextlib.closing(sqlite3.connect(case.database)) as connection:
        connection.execute(
            "INSERT INTO files SELECT 8, device, inode, birth_ns + 1, fingerprint_length, fingerprint, path FROM files"
        )
        connection.execute(
            "INSERT INTO files SELECT 9, device, inode, birth_ns, 100, x'00', path FROM files WHERE id = 7"
        )
        connection.commit()
    case.say_lost(case.start, case.end, file=8)
    case.say_lost(case.start, case.end, file=9)
    assert case.unaccounted() == case.end - case.start


def test_a_line_that_comes_after_all_is_not_lost(case: Case) -> None:
    case.judge.miss(case.tally, case.written)
    for seq in LOST:
        case.oracle.take_message(case.lines[seq].decode().rstrip("\n"))
    case.judge.judge()
    assert (case.tally.missing, case.tally.lost, case.tally.unaccounted) == (len(LOST), 0, 0)


def test_a_line_is_missed_after_one_fault_only(case: Case) -> None:
    later = Tally("a later fault")
    case.judge.miss(case.tally, case.written)
    case.judge.miss(later, case.written)
    case.judge.judge()
    assert (case.tally.lost, later.lost) == (len(LOST), 0)


def test_a_ledger_that_names_what_arrived_is_found_out(case: Case) -> None:
    case.say_lost(0, case.end)
    case.judge.read_ledger()
    assert list(case.judge.said_in_vain().values()) == [LOST.start]


def test_what_the_ledger_has_said_once_counts_when_its_database_is_gone(case: Case) -> None:
    case.say_lost(case.start, case.end)
    case.judge.read_ledger()
    case.database.write_bytes(b"no database")
    assert case.unaccounted() == 0


def test_bytes_are_counted_once_however_ranges_overlap() -> None:
    assert uncovered(10, 20, [(12, 14), (13, 15), (0, 11), (19, 40)]) == 1 + 4
    assert uncovered(10, 20, [(15, None)]) == 5
    assert uncovered(10, 20, []) == 10


def test_the_writers_books_know_a_line_through_every_rotation(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, "app")
    stream.write(3)
    copy = stream.copytruncate()
    stream.write(2)
    moved = stream.rename()
    packed = stream.compress(moved)
    stream.write(1)
    stream.close()
    books = stream.books
    for generation, path in enumerate((copy, packed, stream.path)):
        content = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
        assert books.find(identity_at(path), 50, hashlib.blake2b(content[:50], digest_size=16).digest()) == generation
    size = copy.stat().st_size
    assert [one.generation for one in books.bytes_of(0, 6)] == [0, 1, 2]
    assert books.bytes_of(0, 3) == [Bytes(0, 0, size, 0, 3)]
    assert books.lines_in(0, 1, size) == range(1, 3)
    assert books.lines_in(0, 0, size - 1) == range(2)
