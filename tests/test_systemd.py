"""The unit files are read by systemd's own tools, so that a misspelt option is found here and not on a host."""

import configparser
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parent.parent / "systemd"


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--generators=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )


def with_a_program_that_exists(folder: Path, *, replacing: tuple[str, str] = ("", "")) -> Path:
    text = (SYSTEMD / "hostagent.service").read_text()
    for old, new in (("/usr/bin/hostagent", "/bin/true"), replacing):
        assert old in text
        text = text.replace(old, new)
    unit = folder / "hostagent.service"
    unit.write_text(text)
    return unit


@pytest.mark.requires(tools=["systemd-analyze"])
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    run = verify(with_a_program_that_exists(tmp_path))
    ours = [line for line in run.stderr.splitlines() if "hostagent.service" in line]
    assert run.returncode == 0, run.stderr
    assert ours == []


@pytest.mark.requires(tools=["systemd-analyze"])
def test_a_misspelt_option_would_be_noticed(tmp_path: Path) -> None:
    run = verify(with_a_program_that_exists(tmp_path, replacing=("ProtectClock=", "ProtectClok=")))
    assert "ProtectClok" in run.stderr


def test_a_start_that_fails_is_tried_for_ever() -> None:
    """Five starts in ten seconds are the limit otherwise: after a full disk the agent would stay down."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(SYSTEMD / "hostagent.service")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


@pytest.mark.requires(root=True, tools=["systemd-sysusers", "systemd-tmpfiles"])
def test_user_and_directories_are_made_with_tight_modes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "hostagent.sysusers"], check=True)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", SYSTEMD / "hostagent.tmpfiles"], check=True)
    assert "hostagent:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "etc/hostagent").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "etc/hostagent/conf.d").stat().st_mode & 0o777 == 0o750
