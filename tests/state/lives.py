"""A random life of a spool, its mark and its database, with accidents of every kind; and what was lost in it silently.

A chunk is safe if its block was drained or taken back, if it waits to be taken back, or if the ledger has it; also if
it lies behind the position or the database has never heard of its file, for then it is read from there, or its end is
in the ledger.
"""

import contextlib
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from hostagent.errors import StateError
from hostagent.model import Block, Part, Range
from hostagent.state.spool.spooled import Place
from tests.state.test_spool_rows import Pair
from tests.state.values import block, delivery, file_row, flip, offsets, part

MIB = 1024 * 1024
SIZE = 10
MARK = "cursor"
DATABASE = "checkpoint.db"


class Life:
    """One spool of two files, cut into blocks of one chunk each. An older database may not know the second file."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder / "state"
        self.kept = folder / "kept"
        self.kept.mkdir(parents=True)
        self.databases: list[Path] = []
        self.spools: list[Path] = []
        self.largest = 5000
        options: dict[str, object] = {}
        if self.rng.random() < 0.3:  # a few blocks fill it
            self.largest = 200_000
            options = {"max_bytes": 2 * MIB, "when_full": self.rng.choice(("block", "drop_oldest"))}
        self.pair = Pair(self.folder, **options)
        self.files = [1]
        self.written = {1: 0}
        self.safe: set[str] = set()
        self.story: list[str] = []
        self._begin(1)

    # -- what happens every day

    def put(self) -> None:
        added: list[tuple[Place, Block]] = []
        known = [one for one in self.files if one in self.cursors]
        for _ in range(self.rng.randint(1, 3) if known else 0):
            file = self.rng.choice(known)
            start = self.cursors[file]
            self.written[file] = max(self.written[file], start + SIZE)
            one = block(f"{file}-{start}", part(file, start, start + SIZE))
            place = self.pair.spool.append(one, delivery(one.id, os.urandom(self.rng.randint(200, self.largest))))
            if place is None:
                break
            self.cursors[file] += SIZE
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
        self._deliver(self.rng.randint(1, 4))
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
        self._stopped(lambda: self._keep(self.folder / DATABASE, self.databases))

    def keep_spool(self) -> None:
        self._stopped(lambda: self._keep(self.pair.spool.directory, self.spools))

    def keep_spool_in_use(self) -> None:
        self._keep(self.pair.spool.directory, self.spools)

    def keep_both(self) -> None:
        self.keep_spool()
        self.keep_database()

    def kill(self) -> None:
        """What is on the disk now is all there is."""
        image = self.kept / "image"
        shutil.copytree(self.folder, image)
        self.pair.close()
        shutil.rmtree(self.folder)
        image.rename(self.folder)
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
                self.pair.spool.sync()
                if place is not None and self.rng.random() < 0.5:
                    self._commit([(place, one)], [(place, one)])

    # -- what should not

    def step_back(self) -> None:
        self._stopped(lambda: self._put_back(self.databases, self.folder / DATABASE))

    def put_spool_back(self) -> None:
        self._stopped(lambda: self._put_back(self.spools, self.pair.spool.directory))

    def put_both_back(self) -> None:
        """Of different age, mostly."""

        def both() -> None:
            self._put_back(self.databases, self.folder / DATABASE)
            self._put_back(self.spools, self.pair.spool.directory)

        self._stopped(both)

    def move_anothers_spool_in(self) -> None:
        """The other agent's first file has the same id as ours."""
        folder = self.kept / f"other{len(self.story)}"
        with contextlib.closing(Pair(folder)) as other:
            for number in range(self.rng.randint(1, 4)):
                span = Range(1, number * SIZE, (number + 1) * SIZE, b"\x5a" * 16)  # its file has another content
                one = block(f"x{number}", Part((span,), "chain", "nginx", b"x" * 10, 1, SIZE))
                place = other.spool.append(one, delivery(one.id, os.urandom(self.rng.randint(200, 5000))))
                assert place is not None
                other.spool.sync()
                other.commit([(place, one)])
                if self.rng.random() < 0.3:
                    other.drain(1)
                    other.reopen()
        self._stopped(lambda: self._put_back([folder / "spool" / "main"], self.pair.spool.directory))

    def copy_a_segment(self) -> None:
        """Under a number that is in use, was in use, or is not yet."""

        def copy(found: list[Path]) -> None:
            for path in [one for one in found if one.suffix == ".seg"][:1]:
                number = max(0, int(path.name[:12]) + self.rng.randint(-3, 3))
                copied = path.with_name(f"{number:012d}{path.name[12:]}")
                if not copied.exists():
                    shutil.copy(path, copied)

        self._meanwhile(copy)

    def put_directories_in_place(self) -> None:
        def replace(found: list[Path]) -> None:
            for path in [one for one in found if one.suffix == ".seg"][:1]:
                path.unlink()
                path.mkdir()

        self._meanwhile(replace)

    def fill_the_disk(self) -> None:
        """For a moment, and in the middle of something."""
        what = self.rng.choice([self.put, self.drain, self.take_back, self.go_on, self.restart])
        with contextlib.suppress(StateError, OSError), no_more_than(self.rng.choice((0, 200, 3000, 9000, 40_000))):
            what()
        self.restart()

    def lose_mark(self) -> None:
        self._meanwhile(lambda _: (self.pair.spool.directory / MARK).unlink(missing_ok=True))

    def flip_some(self) -> None:
        self._meanwhile(self._flip)

    def flip_beneath_it(self) -> None:
        self._flip([path for path in self._spooled() if path.suffix == ".seg"])

    def take_away_beneath_it(self) -> None:
        for path in self._spooled():
            if path.suffix == ".seg":
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
        daily += [self.go_on, self.kill, self.keep_spool, self.keep_both, self.keep_spool_in_use]
        bad = [self.step_back, self.lose_mark, self.flip_some, self.flip_beneath_it, self.cut_off, self.take_one_away]
        bad += [self.put_spool_back, self.put_both_back, self.move_anothers_spool_in, self.copy_a_segment]
        bad += [self.put_directories_in_place, self.fill_the_disk, self.take_all_away, self.take_back]
        what = self.rng.choice(daily if self.rng.random() < 0.7 else bad)
        self.story.append(what.__name__)
        what()

    def lost_silently(self) -> list[str]:
        """After the last restart and with the spool drained."""
        self.restart()
        self._deliver(10_000)
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

    def _deliver(self, count: int) -> None:
        for _ in range(count):
            if (head := self.pair.spool.head()) is None:
                break
            self.safe.add(head.id)
            self.pair.spool.advance()

    def _keep(self, what: Path, kept: list[Path]) -> None:
        if what.exists():
            kept.append(self.kept / f"{len(kept)}-{what.name}")
            _copy(what, kept[-1])

    def _put_back(self, kept: list[Path], where: Path) -> None:
        if kept:
            shutil.rmtree(where, ignore_errors=True)
            where.parent.mkdir(exist_ok=True)
            _copy(self.rng.choice(kept), where)

    def _stopped(self, what: Callable[[], object]) -> None:
        self.pair.close()
        what()
        self._open()

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
        found = sorted(path for path in self.pair.spool.directory.glob("*") if path.is_file())
        self.rng.shuffle(found)
        return found

    def _flip(self, paths: list[Path]) -> None:
        for path in paths:
            for _ in range(2 if path.stat().st_size else 0):
                flip(path, self.rng.randrange(path.stat().st_size), 1 << self.rng.randrange(8))

    def _meanwhile(self, accident: Callable[[list[Path]], object]) -> None:
        self._stopped(lambda: accident(self._spooled()))


def _copy(what: Path, where: Path) -> None:
    if what.is_dir():
        shutil.copytree(what, where)
    else:
        shutil.copy(what, where)


@contextlib.contextmanager
def no_more_than(bytes_: int) -> Iterator[None]:
    """No file of this process may grow beyond that: what is written ends there, as on a full disk."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
