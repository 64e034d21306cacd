"""A file that lost its path is found again by what it contains, and nothing else is taken for it."""

import gzip
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.hookspecs import Tailer
from hostagent.model import FileId, Fingerprint
from hostagent.tail.builtin import FileTailer, GzipTailer
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.identity import anchor_of, fingerprint, identify
from hostagent.tail.files.lineage import Continuation, Effort, How, Lost, find_continuation
from tests.support.descriptors import held

TAILERS: dict[str, Tailer] = {"file": FileTailer(), "gzip": GzipTailer()}


class Search:
    """Looks for a file, and closes what was found at the end of the test."""

    def __init__(self) -> None:
        self.found: list[Continuation] = []

    def __call__(
        self, lost: Lost, owned: set[FileId] | None = None, effort: Effort | None = None
    ) -> Continuation | None:
        found = find_continuation(lost, TAILERS, owned=owned or set(), effort=effort or Effort())
        if found is not None:
            self.found.append(found)
        return found


@pytest.fixture
def search() -> Iterator[Search]:
    before = held()
    search = Search()
    yield search
    for found in search.found:
        found.content.close()
    assert held() == before


def lines(count: int, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    return b"".join(b"%d %016x some words\n" % (number, rng.getrandbits(64)) for number in range(count))


def remember(path: Path, offset: int, *, root: str = "/") -> Lost:
    """What a checkpoint knows of a file that was read up to `offset`."""
    fd = os.open(path, os.O_RDONLY)
    content = FileContent(fd)
    known = fingerprint(content)
    assert known is not None
    directory = str(path.parent).removeprefix(root if root != "/" else "")
    lost = Lost(directory, path.name, identify(fd).id, known, offset, anchor_of(content.read(0, offset)), root)
    content.close()
    return lost


def test_a_renamed_file_is_found_by_its_inode(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    data = lines(1000)
    path.write_bytes(data)
    lost = remember(path, 5000)
    path.rename(tmp_path / "something else entirely")
    path.write_bytes(lines(10, seed=2))
    found = search(lost)
    assert found is not None
    assert (found.path, found.how, found.storage) == (str(tmp_path / "something else entirely"), How.RENAMED, "file")
    assert found.identity == lost.identity
    assert found.anchored
    assert found.content.read(5000, 10**6) == data[5000:]


def test_a_copy_made_before_the_truncate_is_found(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    data = lines(1000)
    path.write_bytes(data)
    lost = remember(path, 5000)
    shutil.copy(path, tmp_path / "app.log.1")
    path.write_bytes(lines(10, seed=2))
    found = search(lost)
    assert found is not None
    assert (found.path, found.how, found.storage) == (str(tmp_path / "app.log.1"), How.COPIED, "file")
    assert found.content.read(5000, 10**6) == data[5000:]


@pytest.mark.parametrize("name", ["app.log.1.gz", "app.log.2.gz", "app-20250101.log.gz", "app.log.1"])
def test_a_compressed_copy_is_found_and_read_at_the_same_offset(search: Search, tmp_path: Path, name: str) -> None:
    path = tmp_path / "app.log"
    data = lines(5000)
    path.write_bytes(data)
    lost = remember(path, 100_000)
    path.unlink()
    (tmp_path / name).write_bytes(gzip.compress(data))
    found = search(lost)
    assert found is not None
    assert (found.path, found.how, found.storage) == (str(tmp_path / name), How.COMPRESSED, "gzip")
    assert found.content.read(100_000, 10**6) == data[100_000:]


def test_a_plain_copy_is_preferred_to_a_compressed_one(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(1000))
    lost = remember(path, 5000)
    shutil.copy(path, tmp_path / "app.log.2")
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    found = search(lost)
    assert found is not None
    assert found.path.endswith("app.log.2")


def test_among_generations_with_one_beginning_the_anchor_decides(search: Search, tmp_path: Path) -> None:
    """Logs that begin with the same banner, as many services write at every start."""
    banner = b"=== the same two kilobytes of banner ===\n" * 50
    path = tmp_path / "app.log"
    for number in range(1, 5):
        (tmp_path / f"app.log.{number}.gz").write_bytes(gzip.compress(banner + lines(2000, seed=number)))
        (tmp_path / f"app.log.{number}").write_bytes(banner + lines(2000, seed=10 + number))
    path.write_bytes(banner + lines(1000, seed=99))
    lost = remember(path, 20_000)
    rest = path.read_bytes()[20_000:]
    path.unlink()
    assert search(lost) is None
    (tmp_path / "app.log.9.gz").write_bytes(gzip.compress(banner + lines(1000, seed=99)))
    found = search(lost)
    assert found is not None
    assert found.path.endswith("app.log.9.gz")
    assert found.content.read(20_000, 10**6) == rest


@pytest.mark.parametrize("change", ["shorter", "beginning", "before the position"])
def test_other_content_is_never_taken_for_it(search: Search, tmp_path: Path, change: str) -> None:
    path = tmp_path / "app.log"
    data = bytearray(lines(1000))
    path.write_bytes(data)
    lost = remember(path, 20_000)
    path.unlink()
    if change == "shorter":
        data = data[:19_999]
    elif change == "beginning":
        data[10] ^= 1
    else:
        data[19_999] ^= 1
    (tmp_path / "app.log.1").write_bytes(data)
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(data))
    assert search(lost) is None


def test_the_same_inode_with_other_content_is_another_file(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    path.write_bytes(lines(100, seed=2))
    path.rename(tmp_path / "app.log.1")
    assert search(lost) is None


def test_a_file_nothing_was_read_of_is_only_found_as_itself(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.touch()
    lost = remember(path, 0)
    assert lost.fingerprint == Fingerprint(0, b"")
    path.rename(tmp_path / "app.log.1")
    path.touch()
    (tmp_path / "app.log.2").write_bytes(b"x\n")
    found = search(lost)
    assert found is not None
    assert (found.path, found.how) == (str(tmp_path / "app.log.1"), How.RENAMED)
    (tmp_path / "app.log.1").unlink()
    assert search(lost) is None


def test_a_position_at_the_beginning_is_kept_by_the_fingerprint(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 0)
    shutil.copy(path, tmp_path / "app.log.1")
    path.unlink()
    found = search(lost)
    assert found is not None
    assert found.how is How.COPIED


def test_a_few_bytes_are_not_enough_in_a_file_of_another_name(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"started\n")
    lost = remember(path, 8)
    path.unlink()
    (tmp_path / "other.log").write_bytes(b"started\nother things\n")
    assert search(lost) is None
    (tmp_path / "app.log.1").write_bytes(b"started\nmore\n")
    found = search(lost)
    assert found is not None
    assert found.path.endswith("app.log.1")


def test_what_somebody_else_reads_is_not_taken(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    shutil.copy(path, tmp_path / "app.log.1")
    path.unlink()
    owned = remember(tmp_path / "app.log.1", 0).identity
    assert search(lost, {owned}) is None
    assert search(lost) is not None


def test_a_remounted_file_system_changes_the_device_only(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    lost = lost._replace(identity=lost.identity._replace(device=lost.identity.device + 1))
    found = search(lost)
    assert found is not None
    assert found.how is How.RENAMED


def test_a_torn_gzip_file_counts_as_far_as_it_goes(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(5000))
    lost = remember(path, 50_000)
    stored = gzip.compress(path.read_bytes())
    path.unlink()
    (tmp_path / "app.log.1.gz").write_bytes(stored[: len(stored) // 10])
    assert search(lost) is None
    (tmp_path / "app.log.1.gz").write_bytes(stored[: len(stored) * 9 // 10])
    assert search(lost) is not None


def test_far_into_a_compressed_file_the_anchor_is_left_to_the_first_read(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    data = lines(5000)
    path.write_bytes(data)
    lost = remember(path, 100_000)
    path.unlink()
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(data))
    found = search(lost, effort=Effort(decoded_bytes=1000))
    assert found is not None
    assert not found.anchored
    assert search(lost._replace(name="other.log"), effort=Effort(decoded_bytes=1000)) is None


def test_what_is_decompressed_to_find_a_file_is_bounded_in_all(search: Search, tmp_path: Path) -> None:
    """Somebody may lay out as many compressed files with the right beginning as he likes."""
    path = tmp_path / "app.log"
    data = lines(5000)
    path.write_bytes(data)
    lost = remember(path, 100_000)
    path.unlink()
    for number in range(1, 4):
        decoy = tmp_path / f"app.log.{number}.gz"
        decoy.write_bytes(gzip.compress(data[:2000] + bytes(200_000)))
        os.utime(decoy, (number, number))
    (tmp_path / "app.log.4.gz").write_bytes(gzip.compress(data))
    os.utime(tmp_path / "app.log.4.gz", (0, 0))
    assert search(lost, effort=Effort(decoded_bytes=399_999)) is None
    assert search(lost, effort=Effort(decoded_bytes=400_000)) is not None


def test_of_files_that_others_read_nothing_is_asked(search: Search, tmp_path: Path) -> None:
    """Their inodes alone tell: thousands of them may be rewritten at once, each of which is looked for."""
    path, copy = tmp_path / "app.log", tmp_path / "app.log.1"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    shutil.copy(path, copy)
    path.unlink()
    status = copy.stat()
    assert find_continuation(lost, TAILERS, owned_inodes={(status.st_dev, status.st_ino)}) is None
    assert search(lost) is not None


def test_of_many_siblings_namesakes_are_looked_at_first_and_not_all(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    shutil.copy(path, tmp_path / "app.log.1")
    os.utime(tmp_path / "app.log.1", (0, 0))
    path.unlink()
    for number in range(300):
        (tmp_path / f"stranger{number}").write_bytes(lines(100, seed=1000 + number))
    assert search(lost, effort=Effort(siblings=1)) is not None
    assert search(lost._replace(name="unheard.of"), effort=Effort(siblings=1)) is None


def test_odd_siblings_are_passed_over(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    os.mkfifo(tmp_path / "app.log.0")
    (tmp_path / "app.log.d").mkdir()
    (tmp_path / "app.log.link").symlink_to("/etc/passwd")
    (tmp_path / "app.log.broken.gz").write_bytes(b"\x1f\x8b" + b"not gzip after all")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/app.log.\xff\n")).write_bytes(b"")
    path.rename(tmp_path / "app.log.1")
    found = search(lost)
    assert found is not None
    assert found.path.endswith("app.log.1")


def test_a_directory_that_is_gone_has_no_continuation(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "logs/app.log"
    path.parent.mkdir()
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    shutil.rmtree(path.parent)
    assert search(lost) is None


def test_a_container_s_siblings_are_looked_for_inside_its_root_only(search: Search, tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = root / "logs/app.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(lines(100))
    lost = remember(path, 1000, root=str(root))
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(path, outside / "app.log.1")
    shutil.rmtree(path.parent)
    path.parent.symlink_to(outside)
    assert search(lost) is None
    path.parent.unlink()
    path.parent.mkdir()
    (path.parent / "app.log.1").symlink_to(outside / "app.log.1")
    assert search(lost) is None
    shutil.copy(outside / "app.log.1", path.parent / "app.log.2")
    found = search(lost)
    assert found is not None
    assert found.path == "/logs/app.log.2"


@pytest.mark.requires(root=True, tools=("logrotate",))
@pytest.mark.parametrize(
    "how", ["create", "copytruncate", "copytruncate compress", "create compress", "dateext compress"]
)
def test_what_logrotate_really_does_is_found(search: Search, tmp_path: Path, how: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    path = logs / "app.log"
    data = lines(2000)
    path.write_bytes(data)
    lost = remember(path, 30_000)
    rules = tmp_path / "rules"
    options = how.replace("dateext", "create dateext").split()
    rules.write_text(f"{path} {{\n su root root\n rotate 3\n" + "".join(f" {option}\n" for option in options) + "}\n")
    rules.chmod(stat.S_IRUSR | stat.S_IWUSR)
    subprocess.run(["logrotate", "-f", "-s", tmp_path / "state", rules], check=True)
    found = search(lost)
    assert found is not None
    expected = How.COMPRESSED if "compress" in how.split() else How.COPIED if how == "copytruncate" else How.RENAMED
    assert found.how is expected
    assert found.content.read(30_000, 10**6) == data[30_000:]


@example(contents=[gzip.compress(b"a log?")], packed=[False] * 5, read=0)  # read as plain, so it stays plain
@given(
    contents=st.lists(st.binary(min_size=0, max_size=40), min_size=1, max_size=5),
    packed=st.lists(st.booleans(), min_size=5, max_size=5),
    read=st.integers(0, 40),
)
def test_whatever_is_found_really_has_what_was_read(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], packed: list[bool], read: int
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    path = directory / "app.log"
    path.write_bytes(contents[0])
    offset = min(read, len(contents[0]))
    lost = remember(path, offset)
    path.unlink()
    for number, content in enumerate(contents):
        stored = gzip.compress(content) if packed[number] else content
        (directory / f"app.log.{number}").write_bytes(stored)
    found = find_continuation(lost, TAILERS)
    if found is not None:
        assert found.content.read(0, offset) == contents[0][:offset]
        found.content.close()
    elif lost.fingerprint.length:
        # It was there, as number 0.
        raise AssertionError("not found")


def test_searching_beside_rotation_in_full_swing_finds_it_or_nothing(tmp_path: Path) -> None:
    """Siblings are renamed, compressed and deleted while they are looked at."""
    program = """
import gzip, os, sys
directory = sys.argv[1]
print("go", flush=True)
while True:
    for number in range(3, 0, -1):
        try: os.rename(f"{directory}/app.log.{number}", f"{directory}/app.log.{number + 1}")
        except FileNotFoundError: pass
    with open(f"{directory}/app.log.1", "wb") as out: out.write(os.urandom(3000))
    try: os.unlink(f"{directory}/app.log.4")
    except FileNotFoundError: pass
"""
    path = tmp_path / "app.log"
    path.write_bytes(lines(100))
    lost = remember(path, 1000)
    path.rename(tmp_path / "app.log.keep")
    churn = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    try:
        assert churn.stdout is not None
        churn.stdout.readline()
        before = held()
        for _ in range(300):
            found = find_continuation(lost, TAILERS)
            assert found is not None
            assert found.path.endswith("app.log.keep")
            found.content.close()
        assert held() == before
    finally:
        churn.kill()
        churn.communicate()
