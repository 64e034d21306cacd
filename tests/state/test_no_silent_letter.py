"""Whatever happens to dead letters, in whatever order: none is gone without an entry in the ledger.

Each seed is a life of one output's dead letters with accidents. What was kept and is neither there any more nor was
taken away must have brought at least one new entry.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hostagent.model import Loss
from hostagent.state.dead_letters import DeadLetters
from tests.state.values import HandClock, delivery, flip

MAX_BYTES = 512 * 1024


class Life:
    """The dead letters of one output."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder / "state"
        self.folder.mkdir()
        self.directory = self.folder / "dead-letters" / "main"
        self.losses: list[Loss] = []
        self.kept: set[str] = set()
        self.put_so_far = 0
        self.told = 0
        self.story: list[str] = []
        self._open()

    def put(self) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self.put_so_far += 1
            record = os.urandom(self.rng.choice((10, 5000, 60_000)))
            self.letters.put(output="main", delivery=delivery(f"d{self.put_so_far}"), letters=[(record, "bad")])
            self.kept.add(f"d{self.put_so_far}")

    def requeue(self) -> None:
        for letter in self.letters.entries("main", self.rng.randint(1, 3)):
            self.letters.forget("main", [letter.id])
            self.kept.discard(letter.header.delivery)

    def restart(self) -> None:
        self._stopped(lambda _: None)

    def kill(self) -> None:
        image = self.folder.with_name("image")
        shutil.copytree(self.folder, image)
        self.letters.close()
        shutil.rmtree(self.folder)
        image.rename(self.folder)
        self._open()

    def cut(self) -> None:
        self._stopped(lambda path: os.truncate(path, self.rng.randint(0, path.stat().st_size)))

    def take_away(self) -> None:
        self._stopped(os.unlink)

    def take_all_away_beneath_it(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def flip(self) -> None:
        def some(path: Path) -> None:
            if path.stat().st_size:
                flip(path, self.rng.randrange(path.stat().st_size), 1 << self.rng.randrange(8))

        self._stopped(some)

    def copy(self) -> None:
        def copy(path: Path) -> None:
            if path.suffix == ".seg":
                number = max(0, int(path.name[:12]) + self.rng.randint(-2, 2))
                copied = path.with_name(f"{number:012d}{path.name[12:]}")
                if not copied.exists():
                    shutil.copy(path, copied)

        self._stopped(copy)

    def take_away_beneath_it(self) -> None:
        """And its list with it, sometimes."""
        for path in [one for one in self._files() if one.suffix == ".seg"][:1]:
            path.unlink()
            if self.rng.random() < 0.5:
                (self.directory / "segments").unlink(missing_ok=True)

    def step(self) -> None:
        daily = [self.put, self.put, self.put, self.requeue, self.restart, self.kill]
        bad = [self.cut, self.take_away, self.flip, self.copy, self.take_away_beneath_it]
        bad.append(self.take_all_away_beneath_it)
        what = self.rng.choice(daily if self.rng.random() < 0.7 else bad)
        self.story.append(what.__name__)
        what()

    def gone_silently(self) -> set[str]:
        """Called after each step; what is gone and has an entry is not looked for again."""
        there = {letter.header.delivery for letter in self.letters.entries("main")}
        gone = self.kept - there
        self.kept &= there
        told, self.told = self.told, len(self.losses)
        return gone if told == self.told else set()

    def _open(self) -> None:
        self.letters = DeadLetters(self.folder, HandClock(), self.losses.extend)
        self.letters.bound("main", MAX_BYTES)

    def _files(self) -> list[Path]:
        found = sorted(self.directory.glob("*"))
        self.rng.shuffle(found)
        return found

    def _stopped(self, accident: Callable[[Path], object]) -> None:
        self.letters.close()
        for path in self._files()[:1]:
            accident(path)
        self._open()


@pytest.mark.parametrize("seed", range(30))
def test_no_letter_is_gone_silently(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    for _ in range(30):
        life.step()
        assert life.gone_silently() == set(), life.story
