"""A missing privilege or program skips a test on a laptop and fails the run in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
MARKERS = "[pytest]\nmarkers =\n    requires: needs\n    kernel_may_lack: may be skipped\n"


def run_pytest(folder: Path, test: str, *options: str, in_ci: bool) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text(MARKERS)
    (folder / "test_sample.py").write_text(f"import pytest\n\n{test}\n    pass\n")
    environment = {**os.environ, "HOSTAGENT_CI": "1" if in_ci else "0"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *options, str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


NEEDS_A_PROGRAM = '@pytest.mark.requires(tools=["no-such-program-anywhere"])\ndef test_it() -> None:'
NEEDS_A_MODULE = '@pytest.mark.requires(modules=["no_such_module_anywhere"])\ndef test_it() -> None:'


@pytest.mark.parametrize("test", [NEEDS_A_PROGRAM, NEEDS_A_MODULE])
def test_a_missing_requirement_skips_with_its_reason_outside_ci(tmp_path: Path, test: str) -> None:
    run = run_pytest(tmp_path, test, in_ci=False)
    assert run.returncode == 0, run.stdout
    assert "1 skipped" in run.stdout
    assert "no-such-program-anywhere" in run.stdout or "no_such_module_anywhere" in run.stdout


@pytest.mark.parametrize("test", [NEEDS_A_PROGRAM, NEEDS_A_MODULE])
def test_a_missing_requirement_fails_the_run_in_ci(tmp_path: Path, test: str) -> None:
    run = run_pytest(tmp_path, test, in_ci=True)
    assert run.returncode == 1, run.stdout
    assert "HOSTAGENT_CI=1" in run.stdout


def test_a_plain_skip_fails_in_ci_too(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, '@pytest.mark.skip(reason="later")\ndef test_it() -> None:', in_ci=True)
    assert run.returncode == 1, run.stdout


def test_a_skip_fails_in_ci_also_where_several_processes_share_the_tests(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, NEEDS_A_PROGRAM, "--numprocesses", "2", in_ci=True)
    assert run.returncode == 1, run.stdout
    assert "HOSTAGENT_CI=1" in run.stdout


def test_a_kernel_feature_may_be_missing_in_ci(tmp_path: Path) -> None:
    marks = '@pytest.mark.kernel_may_lack("BTF")\n@pytest.mark.requires(tools=["no-such-program-anywhere"])'
    run = run_pytest(tmp_path, f"{marks}\ndef test_it() -> None:", in_ci=True)
    assert run.returncode == 0, run.stdout
    assert "1 skipped" in run.stdout


def test_a_requirement_that_is_met_runs_the_test(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, '@pytest.mark.requires(tools=["sh"])\ndef test_it() -> None:', in_ci=True)
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout
