"""Whatever happens to a spool, its mark and its database, in whatever order: no block is lost without an entry.

Each seed is a life of a spool with accidents. A chunk is safe if its block was drained or taken back, if it waits to be
taken back, or if the ledger has it; also if it lies behind the position or the database has never heard of its file,
for then it is read from there, or its end is in the ledger.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hostagent.model import Block
from hostagent.state.spool.spooled import Place
from tests.state.test_spool_rows import Pair
from tests.state.values import block, delivery, file_row, flip, offsets, part

SIZE = 10
MARK = "cursor"


class Life:
    """One spool of two files, cut into blocks of one chunk each. An older database may not know the second file."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder / "state"
        self.older = folder / "older"
        self.pair = Pair(self.folder)
        self.files = [1]
        self.written = {1: 0}
        self.safe: set[str] = set()
        self.story: list[str] = []
        self._begin(1)

    # -- what happens every day

    def put(self) -> None:
        added: list[tuple[Place, Block]] = []
        for _ in range(self.rng.randint(1, 3)):
            file = self.rng.choice([one for one in self.files if one in self.cursors])
            start = self.cursors[file]
            self.cursors[file] += SIZE
            self.written[file] = max(self.written[file], self.cursors[file])
            one = block(f"{file}-{start}", part(file, start, start + SIZE))
            place = self.pair.spool.append(one, delivery(one.id, os.urandom(self.rng.randint(200, 5000))))
            assert place is not None
            added.append((place, one))
        self.pair.untold += added
        self.pair.spool.sync()
        if self.rng.random() < 0.2:
            self.rng.choice([self.flip_beneath_it, self.take_away_beneath_it, self.take_all_beneath_it])()
            self.pair.spool.head()
        if self.rng.random() < 0.8:
            self._commit([(place, one) for place, one in added if self.pair.spool.holds(place)], added)
        else:
            self.restart()

    def drain(self) -> None:
        self.safe.update(self.pair.drain(self.rng.randint(1, 4)))
        if self.rng.random() < 0.7:
            self._commit([], [])

    def restart(self) -> None:
        self.pair.close()
        self._open()

    def find_file(self) -> None:
        if len(self.files) == 1:
            self.files += self.pair.checkpoint.add_files([file_row("/var/log/b.log", inode=2)])
            self.written[self.files[1]] = 0
            self._begin(self.files[1])

    def keep_database(self) -> None:
        self.pair.close()
        shutil.copy(self.folder / "checkpoint.db", self.older)
        self._open()

    def take_back(self) -> None:
        for reclaim in self.pair.checkpoint.reclaims("main", self.rng.choice((2, 99))):
            self.pair.checkpoint.end_reclaim(reclaim, [])
        self.go_on()

    def go_on(self) -> None:
        """What was taken back is delivered, or spooled once more, which may not be committed; or it stays in flight."""
        for waiting in self.pair.checkpoint.inflight("main"):
            ((span,),) = (one.ranges for one in waiting.parts)
            one = block(waiting.id, part(*span[:3]))
            what = self.rng.choice(("stay", "deliver", "spool", "spool"))
            if what == "deliver":
                self.pair.checkpoint.commit([], [one])
                self.safe.add(one.id)
            elif what == "spool":
                place = self.pair.spool.append(one, delivery(one.id, os.urandom(200)))
                assert place is not None
                self.pair.spool.sync()
                if self.rng.random() < 0.5:
                    self._commit([(place, one)], [(place, one)])

    # -- what should not

    def step_back(self) -> None:
        if self.older.exists():
            self.pair.close()
            shutil.copy(self.older, self.folder / "checkpoint.db")
            self._open()

    def lose_mark(self) -> None:
        self._meanwhile(lambda _: (self.pair.spool.directory / MARK).unlink(missing_ok=True))

    def flip_some(self) -> None:
        self._meanwhile(self._flip)

    def flip_beneath_it(self) -> None:
        self._flip([path for path in self._spooled() if path.suffix == ".seg"])

    def take_away_beneath_it(self) -> None:
        for path in self.pair.spool.directory.glob("*.seg"):
            path.unlink()

    def take_all_beneath_it(self) -> None:
        shutil.rmtree(self.pair.spool.directory)

    def cut_off(self) -> None:
        def cut(found: list[Path]) -> None:
            for path in found[:1]:
                os.truncate(path, self.rng.randint(0, path.stat().st_size))

        self._meanwhile(cut)

    def take_one_away(self) -> None:
        def take(found: list[Path]) -> None:
            for path in found[:1]:
                path.unlink()

        self._meanwhile(take)

    def take_all_away(self) -> None:
        self._meanwhile(lambda _: shutil.rmtree(self.pair.spool.directory, ignore_errors=True))

    # -- the sum

    def step(self) -> None:
        daily = [self.put, self.put, self.put, self.drain, self.drain, self.restart, self.find_file, self.keep_database]
        daily.append(self.go_on)
        bad = [self.step_back, self.lose_mark, self.flip_some, self.flip_beneath_it, self.cut_off, self.take_one_away]
        what = self.rng.choice(daily if self.rng.random() < 0.7 else [*bad, self.take_all_away, self.take_back])
        self.story.append(what.__name__)
        what()

    def lost_silently(self) -> list[str]:
        """After the last restart and with the spool drained."""
        self.restart()
        self.safe.update(self.pair.drain(10_000))
        self._commit([], [])
        waits = [one.block.parts for one in self.pair.checkpoint.reclaims("main", 10_000)]
        waits += [one.parts for one in self.pair.checkpoint.inflight("main")]
        named = [(span.file, span.start, span.end) for parts in waits for one in parts for span in one.ranges]
        losses = self.pair.checkpoint.losses(limit=10_000)
        named += [(loss.file, loss.start, loss.end) for loss in losses if loss.end is not None]
        stands = offsets(self.pair.checkpoint)
        self.pair.close()
        return [
            f"{file}-{start}, its output stands at {stands.get((file, 'main'))}"
            for file in self.files
            for start in range(0, self.written[file], SIZE)
            if f"{file}-{start}" not in self.safe
            and not any(one == file and low <= start and start + SIZE <= high for one, low, high in named)
            and stands.get((file, "main"), 0) > start
        ]

    # -- parts of it

    def _begin(self, file: int) -> None:
        self.pair.checkpoint.set_positions([(file, "main", 0, b"")])
        self.cursors = {one: at for (one, _), at in offsets(self.pair.checkpoint).items()}

    def _open(self) -> None:
        self.pair.open()
        self.cursors = {one: at for (one, _), at in offsets(self.pair.checkpoint).items()}

    def _commit(self, held: list[tuple[Place, Block]], added: list[tuple[Place, Block]]) -> None:
        if self.pair.spool.place is not None:
            self.pair.commit(held, [one for _, one in added])

    def _spooled(self) -> list[Path]:
        found = sorted(self.pair.spool.directory.glob("*"))
        self.rng.shuffle(found)
        return found

    def _flip(self, paths: list[Path]) -> None:
        for path in paths:
            for _ in range(2 if path.stat().st_size else 0):
                flip(path, self.rng.randrange(path.stat().st_size), 1 << self.rng.randrange(8))

    def _meanwhile(self, accident: Callable[[list[Path]], object]) -> None:
        self.pair.close()
        accident(self._spooled())
        self._open()


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_silently(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    for _ in range(25):
        life.step()
    assert life.lost_silently() == [], life.story
