"""Dead letters survive restarts and crashes, can be listed, read and taken away, and never grow past their bound."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostagent.errors import StateError
from hostagent.state.dead_letters import DeadLetters
from hostagent.state.letters import LetterPart, parts_of_records, read_entries, read_records
from tests.state.values import HandClock, Losses, delivery, flip

Opener = Callable[..., DeadLetters]


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def open_letters(tmp_path: Path, losses: Losses) -> Iterator[Opener]:
    opened: list[DeadLetters] = []

    def open_it(max_bytes: int = 8 * 1024 * 1024) -> DeadLetters:
        for letters in opened:
            letters.close()
        opened.append(DeadLetters(tmp_path, HandClock(), losses.add_losses))
        for output in ("main", "other"):
            opened[-1].bound(output, max_bytes)
        return opened[-1]

    yield open_it
    for letters in opened:
        letters.close()


def test_what_was_refused_is_kept_with_its_reason(open_letters: Opener, tmp_path: Path) -> None:
    letters = open_letters()
    assert letters.entries("main") == []
    assert letters.stats("main")[:3] == (0, 0, 0)
    assert os.listdir(tmp_path) == []
    letters.put(
        output="main", delivery=delivery("d1"), letters=[(b'{"a":1}\n', "bad"), (b"\xff\0\n", "worse"), (b"", "bad")]
    )
    letters.put(output="other", delivery=delivery("d1"), letters=[(b"x", "\udc80" + "r" * 10_000)])
    letters = open_letters()
    (entry,) = letters.entries("main")
    header = entry.header
    assert (header.output, header.delivery, header.content_type) == ("main", "d1", "application/x-ndjson")
    assert [header.reasons[index] for index in header.why] == ["bad", "worse", "bad"]
    assert letters.records("main", entry.id) == [b'{"a":1}\n', b"\xff\0\n", b""]
    assert letters.stats("main")[1:3] == (1, 3)
    assert len(letters.entries("other")[0].header.reasons[0]) == 500


def test_letters_that_come_again_after_a_crash_are_kept_once(open_letters: Opener) -> None:
    letters = open_letters()
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"x", "bad")])
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"y", "bad")])
    letters = open_letters()
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"x", "bad")])
    assert letters.stats("main").letters == 2


def test_what_was_requeued_is_gone_for_good(open_letters: Opener, tmp_path: Path) -> None:
    letters = open_letters()
    for number in range(3):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(b"x", "bad")])
    first, second, third = letters.entries("main")
    letters.forget("main", [first.id, third.id, "77-0"])
    assert letters.entries("main") == [second]
    letters = open_letters()
    assert letters.entries("main") == [second]
    assert letters.stats("main")[1:3] == (1, 1)
    assert list(read_entries(tmp_path / "dead-letters" / "main")) == [second]


def test_the_oldest_make_room_and_are_in_the_ledger(open_letters: Opener, losses: Losses, tmp_path: Path) -> None:
    letters = open_letters(1024 * 1024)
    for number in range(40):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(os.urandom(60_000), "bad")])
    kept = [entry.header.delivery for entry in letters.entries("main")]
    assert kept == [f"d{number}" for number in range(40 - len(kept), 40)]
    assert 10 <= len(kept) <= 17
    assert letters.stats("main")[1:3] == (len(kept), len(kept))
    size = sum(path.stat().st_size for path in (tmp_path / "dead-letters" / "main").glob("*.seg"))
    assert size <= 1024 * 1024
    assert {loss.reason for loss in losses} == {"dead_letter_dropped"}
    assert {loss.output for loss in losses} == {"main"}


def test_segments_without_letters_go_away(open_letters: Opener, losses: Losses, tmp_path: Path) -> None:
    letters = open_letters(1024 * 1024)
    for number in range(10):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(os.urandom(60_000), "bad")])
    letters.forget("main", [entry.id for entry in letters.entries("main")])
    assert len(list((tmp_path / "dead-letters" / "main").glob("*.seg"))) == 1
    assert open_letters(1024 * 1024).entries("main") == []
    assert losses == []


def test_taking_one_away_looks_at_no_other(open_letters: Opener) -> None:
    """They are taken away one by one as a backend takes them, and there may be a hundred thousand."""

    def reads() -> int:
        return int(Path("/proc/self/io").read_text().split("syscr: ")[1].split()[0])

    letters = open_letters()
    for number in range(1000):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(b"x", "bad")])
    ids = [entry.id for entry in letters.entries("main")]
    before = reads()
    for id_ in ids[:20]:
        letters.forget("main", [id_])
    assert reads() - before < 1000
    assert letters.stats("main").letters == 980
    assert open_letters().stats("main").letters == 980


def test_what_makes_room_for_the_note_that_it_is_gone_is_counted_once(open_letters: Opener, losses: Losses) -> None:
    letters = open_letters(256 * 1024)
    for number in range(3):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(os.urandom(70_000), "bad")])
    letters = open_letters(64 * 1024)
    first, *others = letters.entries("main")
    letters.forget("main", [first.id])
    kept = letters.entries("main")
    assert letters.stats("main")[1:] == (len(kept), len(kept), 0, 1, len(others) - len(kept))
    assert len(losses) == len(others) - len(kept)


def test_a_damaged_letter_costs_only_itself(open_letters: Opener, losses: Losses, tmp_path: Path) -> None:
    letters = open_letters()
    for number in range(3):
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(b"x" * 100, "bad")])
    entries = letters.entries("main")
    letters.close()
    (segment,) = (tmp_path / "dead-letters" / "main").glob("*.seg")
    flip(segment, int(entries[1].id.split("-")[1]) + 40)
    letters = open_letters()
    assert letters.entries("main") == [entries[0], entries[2]]
    assert [loss.reason for loss in losses] == ["dead_letter_damaged"]
    assert letters.notices() != []


def test_reading_what_is_not_there_says_so(open_letters: Opener, tmp_path: Path) -> None:
    open_letters().put(output="main", delivery=delivery("d"), letters=[(b"x", "bad")])
    for id_ in ("1-5", "9-0", "", "x", "1-", "-", "1--1"):
        with pytest.raises(StateError, match="no sound dead letter"):
            read_records(tmp_path / "dead-letters" / "main", id_)
    with pytest.raises(StateError):
        read_records(tmp_path / "dead-letters" / "nobody", "1-0")


def test_what_makes_room_is_in_the_ledger_with_its_ranges_where_all_of_them_was_refused(
    open_letters: Opener, losses: Losses
) -> None:
    letters = open_letters(max_bytes=8 * 64 * 1024)
    parts = [LetterPart("nginx", ((1, 0, 60), (2, 0, 40)), 1, 1), LetterPart("app", ((3, 0, 1000),), 10, 2)]
    for number in range(12):
        known = parts if number == 0 else []
        content = os.urandom(60_000)
        letters.put(output="main", delivery=delivery(f"d{number}"), letters=[(content, "bad")], parts=known)
    assert losses.spans()[:3] == [
        (1, 0, 60, "dead_letter_dropped"),
        (2, 0, 40, "dead_letter_dropped"),
        (0, 0, None, "dead_letter_dropped"),
    ]
    assert [loss.source for loss in losses[:3]] == ["nginx", "nginx", "app"]
    assert open_letters().entries("main")[0].header.parts == ()


def test_records_are_traced_to_the_parts_they_came_from() -> None:
    parts = [
        LetterPart("a", ((1, 0, 9),), 3, 3),
        LetterPart("b", ((2, 0, 9),), 0, 0),
        LetterPart("c", ((3, 0, 9),), 5, 2),
    ]
    assert parts_of_records(parts, [0, 2, 3]) == (parts[0]._replace(refused=2), parts[2]._replace(refused=1))
    assert parts_of_records(parts, [4, 5, 99]) == (parts[2]._replace(refused=1),)
    assert parts_of_records((), [0]) == ()


@pytest.mark.parametrize("how", ["all", "directory", "segment", "moved"])
def test_what_is_refused_after_somebody_removed_the_directory_is_kept_all_the_same(
    open_letters: Opener, tmp_path: Path, losses: Losses, how: str
) -> None:
    """The agent has the files open: what it writes there is in no directory any more."""
    letters = open_letters()
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"old", "bad")])
    directory = tmp_path / "dead-letters" / "main"
    if how == "segment":
        next(directory.glob("*.seg")).unlink()
    elif how == "moved":
        directory.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(directory if how == "directory" else directory.parent)
    if how == "all":
        assert letters.stats("main")[:3] == (0, 0, 0)
        assert not directory.exists()
    letters.put(output="main", delivery=delivery("d2"), letters=[(b"new", "bad")])
    letters = open_letters()
    assert [letters.records("main", entry.id) for entry in letters.entries("main")] == [[b"new"]]
    (loss,) = losses
    assert (loss.reason, loss.output, loss.end) == ("dead_letter_missing", "main", None)


def test_what_could_not_be_read_back_is_in_the_ledger_at_once(open_letters: Opener, losses: Losses) -> None:
    letters = open_letters(1024 * 1024 * 1024)
    parts = (LetterPart("s" * 64 * 1024 * 1024, ((1, 0, 10),), 1, 1),)
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"record", "bad")], parts=parts)
    assert losses.spans() == [(1, 0, 10, "dead_letter_dropped")]
    letters = open_letters(1024 * 1024 * 1024)
    assert letters.entries("main") == []


def test_a_segment_that_is_removed_with_the_list_of_them_is_in_the_ledger(
    open_letters: Opener, losses: Losses, tmp_path: Path
) -> None:
    letters = open_letters()
    letters.put(output="main", delivery=delivery("d1"), letters=[(b"record", "bad")])
    directory = tmp_path / "dead-letters" / "main"
    (directory / "segments").unlink()
    next(directory.glob("*.seg")).unlink()
    assert letters.entries("main") == []
    assert losses.spans() == [(0, 0, None, "dead_letter_missing")]
