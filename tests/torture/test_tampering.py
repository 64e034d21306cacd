"""strace does to a process what the torture says it does: a kill point that is never reached would prove nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_for
from tests.torture.tampering import Failing, killing_before, made_in, stopping_after, tracer_of

pytestmark = pytest.mark.requires(tools=("strace",))

RENAMES = "rename,renameat,renameat2"
RENAMER = "import os\nfor number in range(3): os.rename(f'old{number}', f'new{number}')"
WRITER = """
import os, sys
for line in sys.stdin:
    try:
        fd = os.open(line.strip(), os.O_WRONLY | os.O_CREAT)
        os.pwrite(fd, b"x", 0)
        print("written", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


@pytest.fixture
def names(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"old{number}").touch()
    return tmp_path


def renamed(names: Path) -> list[str]:
    return sorted(path.name for path in names.glob("new*"))


def test_a_process_is_killed_before_its_nth_call(names: Path) -> None:
    wrapper = killing_before(names / "log", RENAMES, [], 2)
    run = subprocess.run([*wrapper, sys.executable, "-c", RENAMER], cwd=names, check=False)
    assert run.returncode == -signal.SIGKILL
    assert renamed(names) == ["new0"]


def test_a_process_stands_still_after_its_nth_call(names: Path) -> None:
    log = names / "log"
    process = subprocess.Popen([*stopping_after(log, RENAMES, [], 2), sys.executable, "-c", RENAMER], cwd=names)
    wait_for(lambda: made_in(log), "the second rename")
    tracer = tracer_of(process.pid)
    process.kill()
    os.kill(tracer, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert renamed(names) == ["new0", "new1"]


def test_calls_fail_for_one_file_until_it_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def write(name: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert write("one") == "written"
        failing = Failing(tmp_path / "log", "pwrite64", [tmp_path / "one"], how="EIO:when=1+")
        assert failing.attach(process.pid)
        assert write("one") == "Input/output error"
        assert write("other") == "written"
        failing.stop()
        assert write("one") == "written"
