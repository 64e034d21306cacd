"""`check`, `explain`, `test`, `plugins` and `version` answer from what is on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from hostagent import __version__
from hostagent.cli import COMMANDS, main


def call(*arguments: str, stdin: str | bytes = "") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, list(arguments), input=stdin, catch_exceptions=False)


def spawn(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", "from hostagent.cli import main; main(prog_name='hostagent')", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "hostagent.yaml"
    path.write_text(
        f"data_dir: {tmp_path}/state\n"
        f"api: {{listen: 'unix:{tmp_path}/api.sock'}}\n"
        "host: web-1\n"
        "sources:\n"
        f"  app: {{type: file, include: ['{tmp_path}/logs/**/*.log'], exclude: ['*.1.log'], fields: {{a: web}}}}\n"
        f"  sys: {{type: file, include: ['{tmp_path}/sys/messages']}}\n"
        "outputs: {main: {type: blackhole}}\n"
    )
    return str(path)


def test_an_offered_output_that_is_not_there_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "hostagent.yaml"
    source = "{type: containers, declared_outputs: [main, audit]}"
    path.write_text(f"data_dir: {tmp_path}/state\nsources: {{c: {source}}}\noutputs: {{main: {{type: blackhole}}}}\n")
    run = call("check", "-c", str(path))
    assert run.exit_code == 0
    assert run.stdout.count("there is no such output") == 1
    assert "declared_outputs offers `audit`" in run.stdout


def test_a_valid_configuration_is_summed_up_with_what_may_not_be_meant(config: str, tmp_path: Path) -> None:
    run = call("check", "-c", config)
    assert run.exit_code == 0
    assert run.stdout.startswith(f"{config}: valid\n  source app (file) to main\n")
    assert f"{tmp_path}/logs does not exist yet" in run.stdout
    answer = json.loads(call("check", "-c", config, "--json").stdout)
    assert (answer["valid"], list(answer["sources"]), answer["outputs"]) == (
        True,
        ["app", "sys"],
        {"main": {"type": "blackhole"}},
    )


def test_every_mistake_is_listed_and_the_exit_code_is_2(config: str) -> None:
    text = Path(config).read_text()
    Path(config).write_text(text.replace("include", "includ").replace("blackhole", "blackhol"))
    run = call("check", "-c", config)
    assert run.exit_code == 2
    for place in (":5:21: unknown option", ":6:21: unknown option", ":7:24: unknown output type `blackhol`"):
        assert f"{config}{place}" in run.stdout
    assert "did you mean `blackhole`?" in run.stdout
    assert "5 problems" in run.stdout
    answer = json.loads(call("check", "-c", config, "--json").stdout)
    assert not answer["valid"]
    assert {problem["line"] for problem in answer["problems"]} == {5, 6, 7}


@pytest.mark.parametrize("command", [["run"], ["run", "--once"], ["test"], ["explain", "/x"]])
def test_a_command_that_needs_the_configuration_refuses_a_broken_one(
    config: str, command: list[str], tmp_path: Path
) -> None:
    Path(config).write_text(Path(config).read_text().replace("blackhole", "blackhol"))
    run = spawn(*command, "-c", config)  # `run` takes the signals of its process, which are not to be pytest's
    assert run.returncode == 2
    assert f"{config}:7:24: unknown output type" in run.stderr
    assert "nothing was started" in run.stderr
    assert not (tmp_path / "state").exists()


def test_two_sources_that_match_one_file_are_a_mistake(config: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("x\n")
    Path(config).write_text(Path(config).read_text().replace("sys/messages", "logs/a.*"))
    run = call("check", "-c", config)
    assert run.exit_code == 2
    assert f"sources `app` and `sys` both match '{tmp_path}/logs/a.log'" in run.stdout


def test_hostile_names_reach_no_terminal(config: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with open(os.fsencode(tmp_path / "logs") + b"/a\x1b[2J\xff\n.log", "w"):
        Path(config).write_text(Path(config).read_text().replace("sys/messages", "logs/a*"))
    run = call("check", "-c", config)
    assert run.exit_code == 2
    assert "\x1b" not in run.stdout


@pytest.mark.parametrize(
    "path, collected, step",
    [
        ("logs/deep/a.log", True, "/logs/**/*.log' matches; its lines go to main"),
        ("logs/a.1.log", False, "but exclude '*.1.log' rules it out"),
        ("logs/a.txt", False, "source app: no include pattern matches"),
        ("logs/folder.log", False, "not collected: it is a directory"),
        ("logs/pipe.log", False, "not collected: it is a FIFO"),
        ("logs/link.log", True, "the path is a symbolic link to "),
        ("logs/missing.log", True, "there is no such file now"),
        ("hostagent.yaml/x.log", False, "can't be looked at: Not a directory"),
    ],
)
def test_explain_answers_from_the_configuration_alone(
    config: str, tmp_path: Path, path: str, *, collected: bool, step: str
) -> None:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "a.log").write_text("x\n")
    (tmp_path / "logs" / "folder.log").mkdir()
    os.mkfifo(tmp_path / "logs" / "pipe.log")
    (tmp_path / "logs" / "link.log").symlink_to("deep/a.log")
    answer = json.loads(call("explain", "-c", config, "--json", str(tmp_path / path)).stdout)
    assert answer["collected"] is collected
    assert [one for one in answer["steps"] if step in one], answer["steps"]
    run = call("explain", "-c", config, str(tmp_path / path))
    assert ("not collected" in run.stdout.splitlines()[0]) is not collected
    assert "no agent is running" in run.stdout


def test_sample_lines_become_records(config: str, tmp_path: Path) -> None:
    sample = b'one "q"\ntwo \xff\nthree'
    run = call("test", "-c", config, "--source", "app", stdin=sample)
    records = [json.loads(line) for line in run.stdout.splitlines()]
    assert [record["message"] for record in records] == ['one "q"', "two \ufffd", "three"]
    assert {(record["host"], record["a"]) for record in records} == {("web-1", "web")}
    assert "source app: 3 lines, 3 records, 0 unparsed, 0 dropped, 1 invalid_utf8" in run.stderr
    (tmp_path / "sample.log").write_bytes(sample)
    answer = json.loads(call("test", "-c", config, "--source", "app", "--json", str(tmp_path / "sample.log")).stdout)
    assert len(answer["records"]) == answer["counts"]["records"] == 3


def test_a_sample_needs_a_source_that_exists(config: str) -> None:
    run = call("test", "-c", config)
    assert (run.exit_code, "name a source with --source; sources are app, sys" in run.stderr) == (2, True)
    run = call("test", "-c", config, "--source", "appp")
    assert (run.exit_code, "there is no source 'appp'" in run.stderr) == (2, True)


def test_plugins_lists_what_can_be_named() -> None:
    answer = json.loads(call("plugins", "--json").stdout)
    assert answer["parts"]["outputs"]["http"] == "hostagent"
    assert answer["broken"] == []
    assert "blackhole" in call("plugins").stdout


def test_an_unknown_command_is_wrong_usage() -> None:
    run = call("staus")
    assert (run.exit_code, "there is no command 'staus': did you mean `status`?" in run.stderr) == (2, True)


def test_every_command_explains_itself() -> None:
    listed = call("--help").stdout
    for command in COMMANDS:
        assert f"  {command} " in listed
        run = call(command, "--help")
        assert run.exit_code == 0
        assert run.stdout.startswith(f"Usage: main {command}")


def test_the_version_is_told_without_loading_the_agent() -> None:
    run = spawn("version")
    assert (run.returncode, run.stdout.split()[:2]) == (0, ["hostagent", __version__])
    assert json.loads(call("version", "--json").stdout)["version"] == __version__
    program = (
        "import sys\nfrom hostagent.cli import main\ntry:\n    main(['version'])\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in ('yaml', 'sqlite3', 'ssl', 'hostagent.plugins', 'logging') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[1:] == [""]


def mistakes(config: str, before: str, after: str) -> str:
    """What `check` says once these words of the configuration are changed; it must not be content."""
    path = Path(config)
    path.write_text(path.read_text().replace(before, after))
    run = call("check", "-c", config)
    assert run.exit_code == 2
    return run.stdout


def place(config: str, words: str) -> str:
    """Where words stand, as a mistake's message begins: file, line and column."""
    for number, line in enumerate(Path(config).read_text().splitlines(), 1):
        if words in line:
            return f"{config}:{number}:{line.index(words) + 1}: "
    raise AssertionError(f"{words} stands nowhere in {config}")


def test_a_source_that_would_read_what_an_output_writes_is_a_mistake(config: str, tmp_path: Path) -> None:
    writing = f"{{type: file, path: {tmp_path}/logs/out.log}}"
    found = mistakes(config, "{type: blackhole}", writing)
    assert f"{config}:5:30: this matches {tmp_path}/logs/out.log, which output main writes" in found


def test_a_source_that_would_read_the_agents_own_state_is_a_mistake(config: str, tmp_path: Path) -> None:
    include = f"include: ['{tmp_path}/sys/messages']"
    found = mistakes(config, include, f"include: ['{tmp_path}/**']")
    assert f"{config}:6:30: this matches {tmp_path}/state/checkpoint.db, the agent's own state" in found
    assert f"add '{tmp_path}/state/**' to the source's `exclude`" in found
    text = Path(config).read_text()
    Path(config).write_text(text.replace("/**']}", f"/**'], exclude: ['{tmp_path}/state/**', '*.log']}}"))
    assert call("check", "-c", config).exit_code == 0


def test_two_outputs_that_write_one_file_are_a_mistake(config: str, tmp_path: Path) -> None:
    outputs = f"{{a: {{type: file, path: {tmp_path}/out}}, b: {{type: file, path: {tmp_path}/out}}}}"
    assert f"output a writes {tmp_path}/out, too" in mistakes(config, "{main: {type: blackhole}}", outputs)


def test_options_that_do_not_go_together_are_told_at_their_place(config: str) -> None:
    found = mistakes(config, "fields:", "format: cri, encoding: utf-16, fields:")
    assert place(config, "utf-16") in found


def test_a_pattern_that_means_nothing_is_told_at_its_place(config: str) -> None:
    found = mistakes(config, "['*.1.log']", "['*.1.log', '/a/../b.log', '/c/*']")
    assert place(config, "'/a/../b.log'") + "'/a/../b.log' has '..' in it" in found


@pytest.mark.parametrize("tail", ["outputs2: [\n  : }\n", "x: *none\n", "x: 'never closed\n", "--- {}\n"])
def test_the_state_is_found_although_the_configuration_breaks_off_later(config: str, tmp_path: Path, tail: str) -> None:
    (tmp_path / "state").mkdir()
    with Path(config).open("a") as file:
        file.write(tail)
    assert call("check", "-c", config).exit_code == 2
    assert call("spool", "ls", "-c", config).stdout == "nothing was ever spooled here\n"
    run = call("status", "-c", config)
    assert f"no running agent answers at unix:{tmp_path}/api.sock" in run.stderr


@pytest.mark.parametrize("text", [b"a: [\n", b"\xff", b"- [x\n"])
def test_a_configuration_nobody_can_read_does_not_stand_for_the_defaults(config: str, text: bytes) -> None:
    """They may be those of another agent on this machine."""
    Path(config).write_bytes(text)
    for command, setting in (("status", "api"), ("audit", "data_dir")):
        run = call(command, "-c", config)
        assert (run.exit_code, f"so `{setting}` is not known: correct the file" in run.stderr) == (1, True), run.stderr


@pytest.mark.parametrize(
    "command", [["status"], ["top"], ["files"], ["audit"], ["spool", "ls"], ["dead-letters", "requeue", "m", "--all"]]
)
def test_a_configuration_that_is_named_and_not_there_does_not_stand_for_the_defaults(
    tmp_path: Path, command: list[str]
) -> None:
    run = call(*command, "-c", f"{tmp_path}/mistyped.yaml")
    assert (run.exit_code, run.stderr) == (
        1,
        f"hostagent: there is no {tmp_path}/mistyped.yaml: name the agent's configuration with -c/--config\n",
    )


def test_looking_needs_none_of_the_directories_that_running_does(config: str, tmp_path: Path) -> None:
    """As for a user who is not the agent's and may not write there."""
    (tmp_path / "state").write_text("no directory")
    (tmp_path / "sys").write_text("no directory")
    assert "2 problems" in call("check", "-c", config).stdout
    assert '"message":"a line"' in call("test", "-c", config, "--source", "app", stdin="a line\n").stdout
    assert "collected by source app" in call("explain", "-c", config, f"{tmp_path}/logs/a.log").stdout


@pytest.mark.parametrize(
    "command", [["status"], ["files"], ["audit"], ["spool", "ls"], ["dead-letters", "ls"], ["explain", "web-1"]]
)
def test_an_error_is_json_too_where_json_is_wanted(config: str, command: list[str]) -> None:
    run = call(*command, "-c", config, "--json")
    assert run.exit_code == 1
    assert f"hostagent: {json.loads(run.stdout)['error']}\n" == run.stderr
    assert call(*command, "-c", config).stdout == ""


def test_a_broken_configuration_is_json_too_where_json_is_wanted(config: str) -> None:
    Path(config).write_text(Path(config).read_text().replace("blackhole", "blackhol"))
    run = call("explain", "/x", "-c", config, "--json")
    assert run.exit_code == 2
    assert json.loads(run.stdout)["problems"][0]["line"] == 7
