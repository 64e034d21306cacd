"""Several processes share the tests without getting into each other's way."""

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py")
SETTINGS = "[pytest]\nmarkers =\n    alone: by itself\n    requires: needs\n    kernel_may_lack: may be skipped\n"
# Each test leaves a file named after it, with the process that ran it and what others may do meanwhile.
SAMPLE = """
import fcntl
import os
from pathlib import Path

import pytest

def held_by_nobody(how):
    with open({conftest!r}, "rb") as lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

def note(request):
    others, alone = held_by_nobody(fcntl.LOCK_SH), held_by_nobody(fcntl.LOCK_EX)
    worker = os.environ["PYTEST_XDIST_WORKER"]
    Path({seen!r}, request.node.name).write_text(f"{{worker}} {{others}} {{alone}}")

@pytest.mark.parametrize("number", range(20))
def test_some(request, number):
    note(request)
"""
ALONE = "\n@pytest.mark.alone\ndef test_alone(request):\n    note(request)\n"


def run_shared_out(folder: Path, samples: dict[str, str]) -> dict[str, list[str]]:
    """Run the samples in three processes; what each test has noted."""
    conftest, seen = folder / "conftest.py", folder / "seen"
    seen.mkdir()
    conftest.write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text(SETTINGS)
    for name, more in samples.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SAMPLE.format(conftest=str(conftest), seen=str(seen)) + more)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses", "3", "-p", "no:cacheprovider", str(folder)],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return {path.name: path.read_text().split() for path in seen.iterdir()}


def test_all_tests_with_container_runtimes_go_to_one_process(tmp_path: Path) -> None:
    found = run_shared_out(tmp_path, {"tests/runtimes/test_sample.py": ""})
    assert len(found) == 20
    assert len({worker for worker, *_ in found.values()}) == 1


def test_other_tests_go_to_whoever_is_free_and_one_that_is_alone_shuts_them_out(tmp_path: Path) -> None:
    found = run_shared_out(tmp_path, {"tests/test_sample.py": ALONE})
    assert len({worker for worker, *_ in found.values()}) == 3
    assert found.pop("test_alone")[1:] == ["False", "False"]
    assert {tuple(others_alone) for _, *others_alone in found.values()} == {("True", "False")}
