"""Finding what patterns match, in trees that are large, hostile, changing or only partly readable."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.hookspecs import Notice
from hostagent.tail.finding.paths import Found, Limits, compile_selection, directories, open_beneath, scan
from tests.support.descriptors import held


def found(
    root: Path | str,
    include: str | Sequence[str],
    exclude: Sequence[str] = (),
    *,
    follow: bool | None = None,
    limits: Limits | None = None,
    notices: list[Notice] | None = None,
) -> list[str]:
    selection = compile_selection([include] if isinstance(include, str) else include, exclude)
    hits = scan(str(root), selection, follow=follow, limits=limits or Limits(), notices=notices)
    return sorted(hit.path for hit in hits)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in [
        "logs/a.log",
        "logs/b.log",
        "logs/b.log.1.gz",
        "logs/app/c.log",
        "logs/app/deep/er/d.log",
        "logs/.hidden/e.log",
        "other/f.log",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"line\n")
    return tmp_path


@pytest.mark.parametrize(
    "include, expected",
    [
        ("/logs/a.log", ["/logs/a.log"]),
        ("/logs/*.log", ["/logs/a.log", "/logs/b.log"]),
        ("/*/*.log", ["/logs/a.log", "/logs/b.log", "/other/f.log"]),
        ("/logs/*/*.log", ["/logs/.hidden/e.log", "/logs/app/c.log"]),
        (
            "/logs/**/*.log",
            ["/logs/.hidden/e.log", "/logs/a.log", "/logs/app/c.log", "/logs/app/deep/er/d.log", "/logs/b.log"],
        ),
        ("/**/er/*.log", ["/logs/app/deep/er/d.log"]),
        ("/**/d.log", ["/logs/app/deep/er/d.log"]),
        ("/logs/app/**", ["/logs/app/c.log", "/logs/app/deep/er/d.log"]),
        (("/logs/*.log", "/logs/a.*", "/*/a.log"), ["/logs/a.log", "/logs/b.log"]),
        ("/logs/app", []),
        ("/none/*.log", []),
        ("/logs/a.log/*.log", []),
    ],
)
def test_every_match_is_found_once(tree: Path, include: str | Sequence[str], expected: list[str]) -> None:
    assert found(tree, include) == expected


def test_the_same_tree_is_found_by_its_host_path(tree: Path) -> None:
    assert found("/", f"{tree}/logs/*.log") == [f"{tree}/logs/a.log", f"{tree}/logs/b.log"]


def test_excluded_files_are_not_found_and_excluded_trees_not_entered(tree: Path) -> None:
    assert found(tree, "/logs/**", ["*.gz", "/logs/app/**", "/logs/.*/*"]) == ["/logs/a.log", "/logs/b.log"]
    told = directories(str(tree), compile_selection(["/logs/**"], ["/logs/app/**"]))
    assert sorted(told) == ["/logs", "/logs/.hidden"]


names = st.sampled_from(["a", "b", "log", "a.log", "b.log", ".x"])
patterns = st.lists(st.sampled_from(["a", "*", "**", "*.log", "[ab]*", "log"]), min_size=1, max_size=4)


@given(
    files=st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=12),
    include=st.lists(patterns.map(lambda steps: "/" + "/".join(steps)), min_size=1, max_size=3),
    exclude=st.lists(patterns.map(lambda steps: "/" + "/".join(steps)), max_size=2),
)
def test_scan_finds_exactly_the_files_that_match(
    tmp_path_factory: pytest.TempPathFactory, files: list[str], include: list[str], exclude: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for file in files:
        try:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
        except OSError:
            continue  # a file and a directory of the same name
    selection = compile_selection(include, exclude)
    there = ["/" + str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert found(root, include, exclude) == sorted(path for path in there if selection.matches(path))


def test_any_name_is_found_as_it_is(tmp_path: Path) -> None:
    raw = [b"two\nlines.log", b"\xff\xfe.log", b"n" * 251 + b".log", b" .log", b"*.log", "größe.log".encode()]
    for name in raw:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    hits = found(tmp_path, "/*.log")
    assert {os.fsencode(hit)[1:] for hit in hits} == set(raw)
    for hit in hits:
        os.close(open_beneath(str(tmp_path), hit))


def test_links_to_files_are_found_on_the_host_and_not_in_a_container(tree: Path) -> None:
    (tree / "logs/link.log").symlink_to(tree / "other/f.log")
    hits = {hit.path: hit.is_symlink for hit in scan("/", compile_selection([f"{tree}/logs/*.log"]))}
    assert hits == {f"{tree}/logs/a.log": False, f"{tree}/logs/b.log": False, f"{tree}/logs/link.log": True}
    assert found(tree, "/logs/*.log") == ["/logs/a.log", "/logs/b.log"]
    assert found(tree, "/logs/link.log") == []
    assert found(tree, "/logs/*.log", follow=True) == ["/logs/a.log", "/logs/b.log", "/logs/link.log"]


def test_inode_and_size_are_those_of_the_entry(tree: Path) -> None:
    inode = (tree / "logs/a.log").stat().st_ino
    (tree / "logs/link.log").symlink_to("a.log")
    for pattern in ("/logs/a.log", "/logs/a.*"):
        (hit,) = scan(str(tree), compile_selection([pattern]), sizes=True)
        assert hit == Found("/logs/a.log", inode, is_symlink=False, size=5)
    for pattern in ("/logs/link.log", "/logs/lin*"):
        (hit,) = scan(str(tree), compile_selection([pattern]), sizes=True, follow=True)
        assert (hit.is_symlink, hit.size) == (True, -1)
    (hit,) = scan(str(tree), compile_selection(["/logs/a.*"]))
    assert hit == Found("/logs/a.log", inode, is_symlink=False, size=-1)


def test_linked_directories_are_walked_by_name_but_never_by_any_depth(tree: Path) -> None:
    (tree / "linked").symlink_to("logs")
    (tree / "logs/app/loop").symlink_to("..")
    (tree / "logs/app/self").symlink_to("self")
    assert found(tree, "/linked/*.log") == ["/linked/a.log", "/linked/b.log"]
    assert found(tree, "/link*/*.log") == ["/linked/a.log", "/linked/b.log"]
    assert found(tree, "/**/[cd].log") == ["/logs/app/c.log", "/logs/app/deep/er/d.log"]
    assert found(tree, "/logs/app/loop/app/loop/a.log") == ["/logs/app/loop/app/loop/a.log"]
    assert found(tree, "/logs/app/self/*.log") == []


def test_a_linked_directory_never_leads_out_of_the_root(tree: Path) -> None:
    root = tree / "logs"
    (root / "up").symlink_to("../other")
    (root / "absolute").symlink_to(tree / "other")
    (root / "other").mkdir()
    (root / "other/inside.log").touch()
    # `..` stops at the root, so the first link leads to the root's own `other`.
    assert found(root, "/up/*.log") == ["/up/inside.log"]
    assert found(root, "/absolute/*.log") == []
    assert found(root, "/*/*.log") == ["/.hidden/e.log", "/app/c.log", "/other/inside.log", "/up/inside.log"]


def test_a_directory_swapped_for_a_link_while_it_is_walked_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.log").touch()
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/own.log").touch()
    (root / "evil").symlink_to(tmp_path / "outside")
    stop = threading.Event()

    def swap() -> None:
        for one, other in itertools.cycle([("dir", "spare"), ("evil", "dir"), ("dir", "evil"), ("spare", "dir")]):
            os.rename(root / one, root / other)
            if stop.is_set() and other == "dir" and one == "spare":
                return

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[str] = set()
    for _ in range(2000):
        seen.update(found(root, ["/dir/*.log", "/**/*.log"]))
    stop.set()
    swapper.join()
    assert {path.rsplit("/", 1)[1] for path in seen} == {"own.log"}


def test_directories_that_come_and_go_during_the_walk_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays/a.log").touch()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                (tmp_path / f"d{number}").mkdir()
                (tmp_path / f"d{number}/x.log").touch()
            for number in range(20):
                (tmp_path / f"d{number}/x.log").unlink()
                (tmp_path / f"d{number}").rmdir()

    churner = threading.Thread(target=churn)
    churner.start()
    notices: list[Notice] = []
    walks = [found(tmp_path, "/**/*.log", notices=notices) for _ in range(300)]
    stop.set()
    churner.join()
    assert notices == []
    assert all("/stays/a.log" in walk for walk in walks)
    assert any(len(walk) > 1 for walk in walks)


def test_a_root_that_is_gone_has_nothing(tmp_path: Path) -> None:
    assert found(tmp_path / "gone", "/**") == []
    assert directories(str(tmp_path / "gone"), compile_selection(["/**"])) in ([], ["/"])


@pytest.mark.parametrize(
    "include, expected",
    [
        ("/logs/*.log", ["/logs"]),
        ("/logs/a.log", ["/logs"]),
        ("/logs/new/*.log", ["/logs"]),
        ("/logs/new/er/x.log", ["/logs"]),
        ("/new/*/x.log", ["/"]),
        ("/logs/*/c.log", ["/logs", "/logs/.hidden", "/logs/app"]),
        ("/logs/**/x.log", ["/logs", "/logs/.hidden", "/logs/app", "/logs/app/deep", "/logs/app/deep/er"]),
        ("/logs/app/deep/er/d.log", ["/logs/app/deep/er"]),
        ("/logs/a.log/x.log", ["/logs"]),
        ("/current/*.log", ["/", "/current"]),
    ],
)
def test_what_must_be_watched_for_new_matches(tree: Path, include: str, expected: list[str]) -> None:
    (tree / "current").symlink_to("logs/app")  # may be pointed at another directory at any time
    told = directories(str(tree), compile_selection([include]))
    assert sorted(told) == expected
    assert len(set(told)) == len(told)


def test_a_directory_is_told_before_it_is_listed(tree: Path) -> None:
    """What appears between being told and being listed is either listed or, being watched by then, reported."""

    def appear(directory: str) -> None:
        (tree / directory.strip("/") / "late.log").touch()

    selection = compile_selection(["/logs/**/late.log", "/fresh/late.log"])
    hits = {hit.path for hit in scan(str(tree), selection, on_directory=appear)}
    assert "/logs/late.log" in hits
    assert "/logs/app/deep/er/late.log" in hits


def test_a_directory_that_appears_while_its_parent_is_told_is_entered(tmp_path: Path) -> None:
    told: list[str] = []

    def appear(directory: str) -> None:
        told.append(directory)
        if directory == "/":
            (tmp_path / "late").mkdir(exist_ok=True)
            (tmp_path / "late/x.log").touch()

    hits = list(scan(str(tmp_path), compile_selection(["/late/x.log"]), on_directory=appear))
    assert [hit.path for hit in hits] == ["/late/x.log"]
    assert told == ["/", "/late"]


def test_a_huge_directory_ends_the_search_with_a_notice(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.log").touch()
    notices: list[Notice] = []
    hits = found(tmp_path, "/*.log", limits=Limits(entries=1000), notices=notices)
    assert 900 <= len(hits) <= 1000
    assert len(notices) == 1
    assert "stopped" in notices[0].message
    assert notices[0].subject == str(tmp_path)
    assert notices[0].hint


def test_entries_that_match_nothing_count_too(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    notices: list[Notice] = []
    assert found(tmp_path, "/*.log", limits=Limits(entries=1000), notices=notices) == []
    assert len(notices) == 1


def test_a_tree_of_too_many_directories_ends_the_search_with_a_notice(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"d{number}").mkdir()
    told: list[str] = []
    notices: list[Notice] = []
    selection = compile_selection(["/**/*.log"])
    list(scan(str(tmp_path), selection, limits=Limits(directories=10), on_directory=told.append, notices=notices))
    assert len(told) == 10
    assert ["stopped" in notice.message for notice in notices] == [True]


def test_a_very_deep_tree_ends_the_search_with_a_notice(tmp_path: Path) -> None:
    here = tmp_path
    for number in range(30):
        here = here / "d"
        here.mkdir()
        (here / f"{number}.log").touch()
    notices: list[Notice] = []
    hits = found(tmp_path, "/**/*.log", limits=Limits(depth=10), notices=notices)
    assert sorted(hits) == sorted("/" + "d/" * (number + 1) + f"{number}.log" for number in range(10))
    assert ["too deep" in notice.message for notice in notices] == [True]


def test_a_tree_deeper_than_any_path_is_survived(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    notices: list[Notice] = []
    assert found(tmp_path, "/**/*.log", notices=notices) == []
    assert len(notices) == 1
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 200)], check=True)


def test_other_than_regular_files_are_found_for_somebody_else_to_refuse(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "dir.log").mkdir()
    assert found(tmp_path, "/*.log") == ["/pipe.log"]


@pytest.mark.requires(root=True)
def test_an_unreadable_directory_is_noted_and_the_rest_found(tree: Path) -> None:
    for parent in tree.parents:
        if parent.stat().st_uid == 0 and len(parent.parts) > 2:
            parent.chmod(0o755)
    tree.chmod(0o755)
    (tree / "logs/app").chmod(0o711)  # may be entered, not listed
    (tree / "other").chmod(0o700)
    program = """
import os, sys
from hostagent.tail.finding.paths import compile_selection, scan
os.setgid(65534); os.setuid(65534)
notices = []
for patterns in [["/logs/**/*.log", "/other/*.log"], ["/logs/app/c.log"], ["/other/f.log"]]:
    print(sorted(hit.path for hit in scan(sys.argv[1], compile_selection(patterns), notices=notices)))
for notice in sorted(notices): print(notice.subject.removeprefix(sys.argv[1]), bool(notice.hint))
"""
    done = subprocess.run([sys.executable, "-c", program, tree], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "['/logs/.hidden/e.log', '/logs/a.log', '/logs/b.log']",
        "['/logs/app/c.log']",
        "[]",
        "/logs/app True",
        "/other True",
        "/other True",
    ]


def test_a_scan_given_up_half_way_leaks_nothing(tree: Path) -> None:
    before = held()
    for _ in range(20):
        walk = scan(str(tree), compile_selection(["/**"]))
        next(walk)
        walk.close()  # type: ignore[attr-defined]
    assert held() == before


def test_proc_and_sys_are_not_walked() -> None:
    """A source that says /**/*.log means the machine's logs, not the kernel's hundred thousand made-up directories."""
    told: list[str] = []
    hits = list(scan("/", compile_selection(["/proc/**/*.log", "/sys/**", "/pro[c]/*/maps"]), on_directory=told.append))
    assert hits == []
    assert [directory for directory in told if directory.startswith(("/proc", "/sys"))] == []
