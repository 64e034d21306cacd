"""Opening what a tenant controls: nothing outside the root is ever read, nothing blocks, nothing is touched."""

import ctypes
import os
import platform
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hostagent.tail.finding.beneath import (
    NoDescriptorError,
    NotBeneathError,
    NotPermittedError,
    NotRegularError,
    NotThereError,
    OpenError,
    beneath,
    join,
    open_beneath,
    open_directory,
    path_of,
)
from tests.support.descriptors import held
from tests.support.waiting import wait_for

SECRET = b"root:secret:\n"
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shadow").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "logs").mkdir(parents=True)
    (root / "logs/app.log").write_bytes(b"own\n")
    return root


def read(root: Path | str, path: str, *, follow: bool | None = None) -> bytes:
    fd = open_beneath(str(root), path, follow=follow)
    try:
        return os.read(fd, 1000)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path", ["/logs/app.log", "logs/app.log", "//logs//./app.log", "/logs/../logs/app.log", "/../../logs/app.log"]
)
def test_a_regular_file_is_opened_for_reading_without_blocking(root: Path, path: str) -> None:
    fd = open_beneath(str(root), path)
    flags = fcntl_flags(fd)
    assert os.read(fd, 100) == b"own\n"
    assert flags & os.O_ACCMODE == os.O_RDONLY
    assert flags & os.O_NONBLOCK
    assert not os.get_inheritable(fd)
    os.close(fd)


def fcntl_flags(fd: int) -> int:
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("flags:")).split()[1], 8)


@pytest.mark.parametrize(
    "target", ["{outside}/shadow", "../shadow", "../../shadow", "/shadow", "/proc/self/root{outside}/shadow"]
)
@pytest.mark.parametrize("where", ["file", "directory", "chain"])
def test_no_link_leads_out_of_the_root(root: Path, tmp_path: Path, target: str, where: str) -> None:
    (root / "proc").mkdir()
    goal = target.format(outside=tmp_path)
    if where == "file":
        (root / "logs/evil.log").symlink_to(goal)
    elif where == "directory":
        (root / "logs/dir").symlink_to(os.path.dirname(goal))
    else:
        (root / "logs/second").symlink_to(goal)
        (root / "logs/evil.log").symlink_to("second")
    path = "/logs/dir/shadow" if where == "directory" else "/logs/evil.log"
    for follow in (None, True):
        with pytest.raises(OpenError):
            read(root, path, follow=follow)


def test_a_link_inside_the_root_means_what_it_means_inside(root: Path) -> None:
    (root / "shadow").write_bytes(b"the container's own\n")
    (root / "logs/link.log").symlink_to("/shadow")
    (root / "linked").symlink_to("/logs")
    assert read(root, "/logs/link.log", follow=True) == b"the container's own\n"
    assert read(root, "/linked/app.log") == b"own\n"
    with pytest.raises(NotBeneathError, match="symbolic link"):
        read(root, "/logs/link.log")


def test_on_the_host_a_link_to_a_log_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link.log").symlink_to(root / "logs/app.log")
    fd = open_beneath("/", str(tmp_path / "link.log"))
    assert path_of(fd) == str(root / "logs/app.log")
    os.close(fd)


@pytest.mark.parametrize("swap", ["file", "directory"])
def test_a_swap_race_never_opens_what_is_outside(root: Path, tmp_path: Path, swap: str) -> None:
    """A thread exchanges an honest file or directory for a link to the outside as fast as the kernel lets it."""
    honest, evil = (root / "logs/app.log", root / "evil") if swap == "file" else (root / "logs", root / "evil")
    if swap == "file":
        evil.symlink_to(tmp_path / "shadow")
        path = "/logs/app.log"
    else:
        evil.symlink_to(tmp_path)
        (root / "logs/shadow").write_bytes(b"own\n")
        path = "/logs/shadow"
    stop = threading.Event()
    swaps = [0]
    swapper = threading.Thread(target=exchange_until, args=(honest, evil, stop, swaps))
    swapper.start()
    outcomes: dict[object, int] = {}
    for number in range(6000):
        try:
            outcome: object = read(root, path, follow=bool(number % 2))
        except OpenError as error:
            outcome = type(error)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    stop.set()
    swapper.join()
    assert SECRET not in outcomes
    # The race was real: both faces were met while they changed.
    assert swaps[0] > 100
    assert outcomes[b"own\n"] > 10
    assert sum(count for outcome, count in outcomes.items() if isinstance(outcome, type)) > 10


def exchange_until(one: Path, other: Path, stop: threading.Event, swaps: list[int]) -> None:
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    while not stop.is_set():
        assert renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0  # RENAME_EXCHANGE
        swaps[0] += 1


def test_a_fifo_is_refused_without_letting_its_writer_through(root: Path) -> None:
    os.mkfifo(root / "logs/pipe.log")
    with pytest.raises(NotRegularError, match="FIFO") as caught:
        read(root, "/logs/pipe.log")
    assert caught.value.kind == "FIFO"
    assert caught.value.hint
    # Had its read end been opened, a writer waiting for one would have gone on and died of SIGPIPE.
    writer = subprocess.Popen(["sh", "-c", 'echo line > "$0"', root / "logs/pipe.log"])
    try:
        wait_for(lambda: Path(f"/proc/{writer.pid}/wchan").exists(), "the writer to start")
        for _ in range(100):
            with pytest.raises(NotRegularError):
                read(root, "/logs/pipe.log")
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.requires(root=True)
def test_a_device_is_refused_unopened(root: Path) -> None:
    os.mknod(root / "logs/null.log", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "logs/disk.log", stat.S_IFBLK | 0o666, os.makedev(7, 250))  # opening it would fail with ENXIO
    with pytest.raises(NotRegularError, match="character device"):
        read(root, "/logs/null.log")
    with pytest.raises(NotRegularError, match="block device"):
        read(root, "/logs/disk.log")


def test_sockets_and_directories_are_refused(root: Path) -> None:
    os.mknod(root / "logs/sock.log", stat.S_IFSOCK | 0o600)
    with pytest.raises(NotRegularError, match="socket"):
        read(root, "/logs/sock.log")
    with pytest.raises(NotRegularError, match="directory") as caught:
        read(root, "/logs")
    assert caught.value.kind == "directory"


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/environ", "/sys/kernel/notes", "/sys/kernel/uevent_seqnum"])
def test_files_that_are_made_up_while_they_are_read_are_refused(path: str) -> None:
    with pytest.raises(NotRegularError, match="file system, not a log"):
        read("/", path)


@pytest.mark.requires(root=True)
def test_a_container_s_proc_shows_nothing(root: Path) -> None:
    """A tenant may declare paths in its /proc, or link to them; what the runtime masks there is not our affair."""
    (root / "proc").mkdir()
    (root / "logs/host.log").symlink_to("/proc/self/root/etc/shadow")
    program = """
import subprocess, sys
from hostagent.tail.finding.beneath import OpenError, open_beneath
root = sys.argv[1]
subprocess.run(["mount", "-t", "proc", "proc", root + "/proc"], check=True)
made_up = ["/proc/kmsg", "/proc/self/mem", "/proc/self/maps"]
links = ["/proc/self/root/etc/hostname", "/proc/self/fd/0", "/logs/host.log"]
for path in made_up + links:
    try:
        open_beneath(root, path, follow=True)
    except OpenError as error:
        print(type(error).__name__)
"""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", program, root],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout.split() == ["NotRegularError"] * 3 + ["NotBeneathError"] * 3


@pytest.mark.parametrize(
    "path, error",
    [
        ("/logs/none.log", NotThereError),
        ("/none/app.log", NotThereError),
        ("/logs/app.log/deeper", NotThereError),
        ("/logs/app.log\0.gz", NotThereError),
        ("", NotThereError),
        ("/logs/" + "n" * 256, OpenError),
        ("/x" * 3000, OpenError),
        ("/loop", NotBeneathError),
    ],
)
def test_what_can_not_be_opened_says_why(root: Path, path: str, error: type[OpenError]) -> None:
    (root / "loop").symlink_to("/loop")
    with pytest.raises(error) as caught:
        read(root, path, follow=True)
    assert isinstance(caught.value, OpenError)
    assert "\0" not in str(caught.value)


def test_a_root_that_is_gone_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotThereError):
        read(tmp_path / "gone", "/app.log")


@pytest.mark.parametrize(
    "name", [b"two\nlines.log", b"\xff\xfe\x80.log", b"n" * 255, b"-rf *.log", "größe.log".encode()]
)
def test_any_name_can_be_opened(root: Path, name: bytes) -> None:
    (root / "logs" / os.fsdecode(name)).write_bytes(name)
    assert read(root, "/logs/" + os.fsdecode(name)) == name


def test_messages_hold_no_raw_line_breaks_or_half_characters(root: Path) -> None:
    with pytest.raises(NotThereError) as caught:
        read(root, "/logs/" + os.fsdecode(b"a\n\xff"))
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


@pytest.mark.requires(root=True)
def test_permission_that_is_missing_can_come_later(root: Path) -> None:
    """The agent as a user without capabilities; root can't be refused."""
    log = root / "logs/app.log"
    for parent in [root, *root.parents]:
        if parent.stat().st_uid == 0 and len(parent.parts) > 2:
            parent.chmod(0o755)
    log.chmod(0o600)
    program = """
import os, sys
from hostagent.tail.finding.beneath import NotPermittedError, open_beneath
import hostagent.tail.files.identity
os.setgid(65534); os.setuid(65534)
def attempt():
    try:
        return os.read(open_beneath(sys.argv[1], "/logs/app.log"), 100).decode().strip()
    except NotPermittedError as error:
        return "refused: " + error.hint
print(attempt(), flush=True)
sys.stdin.readline()
print(attempt(), flush=True)
"""
    agent = subprocess.Popen(
        [sys.executable, "-c", program, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert agent.stdin is not None
    assert agent.stdout is not None
    first = agent.stdout.readline()
    log.chmod(0o644)
    second, _ = agent.communicate("\n", timeout=60)
    assert first.startswith("refused: let the agent's user read it")
    assert second == "own\n"


def test_running_out_of_descriptors_is_told_apart(root: Path) -> None:
    program = """
import os, resource, sys
from hostagent.tail.finding.beneath import NoDescriptorError, open_beneath
os.close(open_beneath(sys.argv[1], "/logs/app.log"))
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
held = []
try:
    while True:
        held.append(open_beneath(sys.argv[1], "/logs/app.log"))
except NoDescriptorError as error:
    print(len(held) > 5, error)
os.close(held.pop()); os.close(held.pop())
# Nothing leaked on the way out: the two given back can be had again.
os.close(open_beneath(sys.argv[1], "/logs/app.log"))
"""
    done = subprocess.run([sys.executable, "-c", program, root], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("True")
    assert issubclass(NoDescriptorError, OpenError)
    assert issubclass(NotPermittedError, OpenError)


def test_refusals_leak_no_descriptors(root: Path) -> None:
    os.mkfifo(root / "logs/pipe.log")
    (root / "loop").symlink_to("/loop")
    before = held()
    for path in ["/logs/pipe.log", "/loop", "/none", "/logs"] * 50:
        with pytest.raises(OpenError):
            read(root, path)
    assert held() == before


@pytest.fixture
def without_openat2() -> str:
    """Python code that makes this process's kernel refuse openat2, as an old one or an old sandbox does."""
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(platform.machine())
    if arch is None:
        pytest.skip("no seccomp program for this architecture")
    program = b"".join(
        struct.pack("=HBBI", *line)
        for line in [
            (0x20, 0, 0, 0),  # load the call's number
            (0x15, 0, 1, 437),
            (0x06, 0, 0, 0x00050000 | 38),  # fail with ENOSYS
            (0x06, 0, 0, 0x7FFF0000),
        ]
    )
    return f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer({program!r})
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
prog = Prog({len(program) // 8}, ctypes.addressof(program))
assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0, ctypes.get_errno()
"""


@pytest.mark.kernel_may_lack("seccomp")
def test_without_openat2_files_are_still_read_and_links_refused(
    root: Path, tmp_path: Path, without_openat2: str
) -> None:
    (root / "logs/evil.log").symlink_to(tmp_path / "shadow")
    (root / "dir").symlink_to(tmp_path)
    (tmp_path / "link.log").symlink_to(root / "logs/app.log")
    program = (
        without_openat2
        + """
import os, sys
from hostagent.tail.finding.beneath import OpenError, open_beneath, open_directory
root, outside = sys.argv[1:]
def attempt(root, path):
    try:
        return os.read(open_beneath(root, path, follow=None), 100).decode().strip()
    except OpenError as error:
        return type(error).__name__
for path in ["/logs/app.log", "/logs/evil.log", "/dir/shadow", "/logs/../../shadow", "/logs", "/none"]:
    print(attempt(root, path))
print(attempt("/", outside + "/link.log"))
print(sorted(os.listdir(open_directory(root, "/logs"))), sorted(os.listdir(open_directory(root, "/"))))
"""
    )
    done = subprocess.run([sys.executable, "-c", program, root, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "own",
        "NotBeneathError",
        "NotThereError",
        "NotBeneathError",
        "NotRegularError",
        "NotThereError",
        "own",
        "['app.log', 'evil.log'] ['dir', 'logs']",
    ]


def test_a_directory_is_opened_for_listing_beneath_the_root_only(root: Path, tmp_path: Path) -> None:
    (root / "dir").symlink_to(tmp_path)
    (root / "inner").symlink_to("/logs")
    fd = open_directory(str(root), "/inner")
    assert os.listdir(fd) == ["app.log"]
    os.close(fd)
    with pytest.raises(NotThereError):
        open_directory(str(root), "/dir")
    with pytest.raises(OpenError):
        open_directory(str(root), "/inner", follow=False)
    with pytest.raises(NotThereError):
        open_directory(str(root), "/logs/app.log")


@pytest.mark.parametrize(
    "root, path, host", [("/", "/a", "/a"), ("/r", "/a", "/r/a"), ("/r/", "/a", "/r/a"), ("/r/", "/", "/r")]
)
def test_names_beneath_a_root_and_the_host_s_go_together(root: str, path: str, host: str) -> None:
    assert join(root, path) == host
    assert beneath(root, host) == path


@pytest.mark.parametrize("step", ["root", "above"])
def test_a_link_put_on_the_way_to_the_root_leads_nowhere(root: Path, tmp_path: Path, step: str) -> None:
    above = tmp_path / "above"
    above.mkdir()
    root = root.rename(above / "root")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_bytes(SECRET)
    (tmp_path / "etc/root").mkdir()
    (tmp_path / "etc/root/shadow").write_bytes(SECRET)
    swapped = root if step == "root" else above
    swapped.rename(tmp_path / "aside")
    swapped.symlink_to(tmp_path / "etc")
    with pytest.raises(NotBeneathError):
        read(root, "/shadow")


def test_a_process_s_root_is_a_root(root: Path) -> None:
    assert read(f"/proc/{os.getpid()}/root", f"{root}/logs/app.log") == b"own\n"
