"""What commands print: to a terminal, a full disk, or nothing at all, while names and lines are hostile."""

import json
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.agent import Agent, agent_command, agent_environment
from tests.support.waiting import wait_for

# Colours, a C1 control sequence, a mark that turns the text round, DEL.
HOSTILE = "\x1b[31mred \u009b2J \u202e txt \x7f"


def on_a_terminal(arguments: Sequence[str], stdin: Path | None = None) -> str:
    """What a command prints, stderr included, when a terminal shows it."""
    ours, theirs = pty.openpty()
    with (stdin or Path(os.devnull)).open("rb") as given:
        process = subprocess.Popen(
            [*agent_command(), *arguments],
            env={**agent_environment(), "NO_COLOR": "1"},
            stdin=given,
            stdout=theirs,
            stderr=theirs,
        )
    os.close(theirs)
    told = b""
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:  # how Linux says that nobody has the other side open any more
            break
        if not got:
            break
        told += got
    process.wait(30)
    os.close(ours)
    return told.decode()


def raw_controls(text: str) -> set[str]:
    """What a terminal would obey, the colours of the command line left out."""
    text = text.replace("\r\n", "\n")
    for own in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m\x1b[1m", "\x1b[32m", "\x1b[33m\x1b[1m"):
        text = text.replace(own, "")
    unsafe = {*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {ord("\n")}
    return {char for char in text if ord(char) in unsafe}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "hostagent.yaml"
    settings = {
        "data_dir": f"{tmp_path}/state",
        "api": {"listen": f"unix:{tmp_path}/api.sock"},
        "sources": {"app": {"type": "file", "include": [f"{tmp_path}/logs/*"]}},
        "outputs": {"main": {"type": "blackhole"}},
    }
    path.write_text(json.dumps(settings))
    return str(path)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_records_on_a_terminal_have_no_control_characters(config: str, tmp_path: Path, options: list[str]) -> None:
    sample = tmp_path / "sample.log"
    sample.write_text(HOSTILE + "\n")
    told = on_a_terminal(["test", str(sample), "-c", config, *options])
    assert "red" in told
    assert not raw_controls(told)


def test_names_of_files_in_a_complaint_have_no_control_characters(config: str, tmp_path: Path) -> None:
    """As after `hostagent test /var/log/*`."""
    for arguments in (["test", config, HOSTILE], ["test", HOSTILE], ["spool", "replay", HOSTILE], [HOSTILE]):
        told = on_a_terminal([*arguments, *([] if arguments == [HOSTILE] else ["-c", config])])
        assert "red" in told
        assert not raw_controls(told)
    told = on_a_terminal(["test", "-c", str(tmp_path / HOSTILE)])
    assert "can't read" in told
    assert not raw_controls(told)


def test_json_escapes_what_a_terminal_would_obey(config: str, tmp_path: Path) -> None:
    odd = tmp_path / "logs" / "a\u009b2J\u202e.log"
    odd.parent.mkdir()
    odd.write_text("a line\n")
    command = [*agent_command(), "explain", str(odd), "-c", config, "--json"]
    run = subprocess.run(command, env=agent_environment(), capture_output=True, check=True)
    assert run.stdout.isascii()
    assert json.loads(run.stdout)["path"] == str(odd)


@pytest.mark.parametrize("arguments", [["version"], ["plugins"], ["--help"], ["run", "--help"], ["check"], ["test"]])
def test_a_full_disk_behind_standard_output_is_told_in_one_line(config: str, arguments: list[str]) -> None:
    takes_config = arguments in (["check"], ["test"])
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [*agent_command(), *arguments, *(["-c", config] if takes_config else [])],
            env=agent_environment(),
            input="a line\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.stderr == "hostagent: standard output can't be written: No space left on device\n"
    assert run.returncode == 1


def test_records_for_a_closed_standard_output_are_not_written_somewhere_else(tmp_path: Path) -> None:
    """The first file to be opened would get descriptor 1: that was `lock`, and the records counted as delivered."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_text("a line that must not be in any other file\n")
    source = {"type": "file", "include": [f"{logs}/*.log"]}
    with Agent(tmp_path, {"sources": {"app": source}, "outputs": {"main": {"type": "stdout"}}}) as agent:
        agent.wrapper = ["sh", "-c", 'exec "$@" >&-', "sh"]
        agent.start()
        wait_for(lambda: "standard output can't be written" in agent.log.read_text(), "the output to complain")
        agent.kill()
        for path in (tmp_path / "state").iterdir():
            assert not path.is_file() or b"must not be" not in path.read_bytes(), path
        (only,) = agent.answer("audit")["sources"]
        assert only["account"]["delivered"] == 0


def test_the_agent_starts_with_all_standard_streams_closed(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_text("a line\n")
    source = {"type": "file", "include": [f"{logs}/*.log"]}
    target = tmp_path / "out" / "records"
    target.parent.mkdir()
    outputs = {"main": {"type": "file", "path": str(target)}}
    with Agent(tmp_path, {"sources": {"app": source}, "outputs": outputs}) as agent:
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *agent.command("run", "--once")]
        assert subprocess.run(command, env=agent_environment(), check=False, timeout=60).returncode == 0
    assert "a line" in target.read_text()
