"""Watching and scanning together: whoever watches each directory before listing it misses no file."""

import threading
from pathlib import Path

from hostagent.clock import Clock
from hostagent.tail.finding.paths import compile_selection, scan
from hostagent.tail.watching.watcher import Kind, Watcher


class Follower:
    """The least anybody can do: list once, then add what events say, and list again when a directory appears."""

    def __init__(self, root: Path, pattern: str) -> None:
        self.known: set[str] = set()
        self.watcher = Watcher(Clock())
        self._selection = compile_selection([f"{root}{pattern}"])
        self._list()

    def _list(self) -> None:
        hits = scan("/", self._selection, on_directory=self.watcher.watch)
        self.known.update(hit.path for hit in hits)

    def follow(self, timeout_s: float) -> bool:
        events = self.watcher.read(timeout_s)
        again = False
        for event in events:
            if event.kind is Kind.OVERFLOW or event.kind is Kind.DIRECTORY_GONE or event.is_dir:
                again = True
            elif self._selection.matches(f"{event.directory}/{event.name}"):
                self.known.add(f"{event.directory}/{event.name}")
        if again:
            self._list()
        return bool(events)


def grow(root: Path, branch: int) -> None:
    """Directories and files as fast as they can be made, some under a name they get only later, some short-lived."""
    for number in range(150):
        directory = root / f"b{branch}" / f"d{number}" / "deep"
        directory.mkdir(parents=True)
        (directory / "first.log").touch()
        made = root / f".b{branch}-{number}.tmp"
        made.mkdir()
        (made / "inside.log").touch()
        made.rename(root / f"b{branch}" / f"moved{number}")
        (root / f"b{branch}" / f"d{number}" / "later.log").touch()


def test_a_tree_that_grows_from_all_sides_is_followed_completely(tmp_path: Path) -> None:
    follower = Follower(tmp_path, "/**/*.log")
    growers = [threading.Thread(target=grow, args=(tmp_path, branch)) for branch in range(3)]
    for grower in growers:
        grower.start()
    while any(grower.is_alive() for grower in growers):
        follower.follow(0.01)
    while follower.follow(0):
        pass
    follower.watcher.close()
    there = {str(path) for path in tmp_path.rglob("*.log")}
    assert len(there) == 3 * 150 * 3
    assert there - follower.known == set()


def test_a_path_that_appears_step_by_step_is_followed(tmp_path: Path) -> None:
    follower = Follower(tmp_path, "/srv/*/log/app.log")
    for step in ("srv", "srv/one", "srv/one/log"):
        (tmp_path / step).mkdir()
        follower.follow(10)
    (tmp_path / "srv/one/log/app.log").touch()
    follower.follow(10)
    assert follower.known == {f"{tmp_path}/srv/one/log/app.log"}
    (tmp_path / "srv/one").rename(tmp_path / "srv/away")
    (tmp_path / "srv/away").rename(tmp_path / "srv/two")
    while follower.follow(0):
        pass
    (tmp_path / "srv/two/log/app.log").rename(tmp_path / "srv/two/log/old")
    (tmp_path / "srv/two/log/app.log").touch()
    while follower.follow(0):
        pass
    follower.watcher.close()
    assert f"{tmp_path}/srv/two/log/app.log" in follower.known
