"""`status`, `files` and `explain` show what a running agent answers, and say what to do when none does."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click.testing
import msgspec
import pytest

from hostagent.cli import main
from hostagent.clock import Clock
from hostagent.config.listen import TcpAddress, UnixAddress
from hostagent.observe.api import Answer, Api, json_answer
from hostagent.observe.report import AgentReport, ExplainReport
from tests.cli.reports import ESCAPE, FILES, HEALTHY, UNHEALTHY

Agent = Callable[[AgentReport], None]


def call(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "hostagent.yaml"
    path.write_text(f"api: {{listen: [127.0.0.1:1, 'unix:{tmp_path}/api.sock']}}\nsources: {{this: is broken}}\n")
    return str(path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    running: list[Api] = []

    def explained(query: Mapping[str, str]) -> Answer:
        report = ExplainReport(path=query["path"], collected=True, source="nginx", steps=("it matches",))
        return json_answer(report)

    def start(report: AgentReport) -> None:
        routes = {
            "/status": lambda _query: json_answer(report),
            "/files": lambda _query: json_answer(FILES),
            "/explain": explained,
        }
        api = Api([UnixAddress(f"{tmp_path}/api.sock"), TcpAddress("127.0.0.1", 0)], routes, Clock())
        api.start()
        running.append(api)

    yield start
    for api in running:
        api.stop()


def test_status_tells_what_is_wrong_first_and_what_to_do(agent: Agent, config: str) -> None:
    agent(UNHEALTHY)
    run = call("status", "-c", config)
    assert run.exit_code == 1
    text = run.stdout
    assert text.startswith("UNHEALTHY  hostagent 1.2.3 on web-1, pid 4711, up 1 h 1 min")
    for told in (
        "! checkpoint: disk full",
        "do: free some space on /var",
        "retrying for 1 min 5 s",
        "3.0 MiB",
        "1.0 MiB of 2.0 GiB",
        "1,234,567 records",
        "! main: connection refused\\x1b[2J (2.0 s ago)",
        "was screen: pipe full (10 min 0 s ago)",
        "do: nothing is lost",
        "main: 7 records that it refused are kept",
        "do: hostagent dead-letters ls main",
        "nginx: 100 B lost",
        "do: hostagent audit --losses",
        "nginx: 3 records did not parse",
        "pods: no file matches",
        "/var/log/a\\nb: permission denied",
    ):
        assert told in text
    assert text.count("connection refused") == 1
    assert "Notices (1)" in text
    assert ESCAPE not in text
    assert text.index("disk full") < text.index("Outputs") < text.index("Sources") < text.index("Notices")


def test_a_healthy_agents_status_exits_0(agent: Agent, config: str) -> None:
    agent(HEALTHY)
    run = call("status", "-c", config)
    assert (run.exit_code, run.stdout.split()[0]) == (0, "healthy")


def test_status_as_json_is_the_agents_own_answer(agent: Agent, config: str) -> None:
    agent(UNHEALTHY)
    run = call("status", "-c", config, "--json")
    assert run.exit_code == 1
    assert msgspec.json.decode(run.stdout, type=AgentReport) == UNHEALTHY


def test_files_are_listed_the_furthest_behind_first(agent: Agent, config: str) -> None:
    agent(HEALTHY)
    lines = call("files", "-c", config).stdout.splitlines()
    assert "/var/log/large\\x1b[2J.log" in lines[1]
    assert "main at 1,000" in lines[1]
    assert "/var/log/small.log" in lines[2]
    assert "and 1 more" in lines[3]


@pytest.mark.parametrize(
    "options, paths, left_out",
    [
        ((), ["large", "small"], 1),
        (("--source", "nginx"), ["small"], 1),
        (("--behind",), ["large"], 1),
        (("--limit", "1"), ["large"], 2),
        (("--source", "none"), [], 1),
    ],
)
def test_files_can_be_narrowed(
    agent: Agent, config: str, options: tuple[str, ...], paths: list[str], left_out: int
) -> None:
    agent(HEALTHY)
    answer = json.loads(call("files", "-c", config, "--json", *options).stdout)
    assert [file["path"].split("/")[-1][:5] for file in answer["files"]] == paths
    assert answer["left_out"] == left_out


def test_explain_asks_the_running_agent_with_any_name_a_file_can_have(
    agent: Agent, config: str, tmp_path: Path
) -> None:
    agent(HEALTHY)
    run = call("explain", "-c", config, f"{tmp_path}/a b\n\udcff.log")
    assert run.exit_code == 0
    assert run.stdout.startswith(f"{tmp_path}/a b\\n\\xff.log: collected by source nginx")
    assert "according to the running agent" in run.stdout


@pytest.mark.parametrize("command", ["status", "files"])
def test_without_an_agent_it_says_which_socket_and_how_to_start_one(config: str, tmp_path: Path, command: str) -> None:
    run = call(command, "-c", config)
    assert run.exit_code == 1
    assert f"no running agent answers at unix:{tmp_path}/api.sock (No such file or directory)" in run.stderr
    assert "hostagent run" in run.stderr
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/api.sock")
    assert "(Connection refused)" in call(command, "-c", config).stderr


def test_a_configuration_without_an_address_means_the_default_socket(tmp_path: Path) -> None:
    (tmp_path / "hostagent.yaml").write_text("sources: {}\n")
    run = call("status", "-c", str(tmp_path / "hostagent.yaml"))
    assert run.exit_code == 1
    assert "unix:/run/hostagent/api.sock" in run.stderr


def test_an_address_can_be_named(agent: Agent, tmp_path: Path) -> None:
    agent(HEALTHY)
    assert call("status", "--api", f"unix:{tmp_path}/api.sock").exit_code == 0
    run = call("status", "--api", "nowhere")
    assert (run.exit_code, "expected unix:/path or host:port" in run.stderr) == (1, True)


def test_a_port_that_serves_metrics_only_is_told() -> None:
    api = Api([TcpAddress("127.0.0.1", 0)], {"/status": lambda _query: Answer(b"{}")}, Clock())
    api.start()
    try:
        run = call("status", "--api", str(api.addresses[0]))
    finally:
        api.stop()
    assert run.exit_code == 1
    assert "serves metrics and health only" in run.stderr


@pytest.mark.parametrize("body", [b"", b"not json", b'{"version": 5}', b"[" * 10000])
def test_an_answer_of_another_kind_is_told(tmp_path: Path, body: bytes) -> None:
    api = Api([UnixAddress(f"{tmp_path}/api.sock")], {"/status": lambda _query: Answer(body)}, Clock())
    api.start()
    try:
        run = call("status", "--api", f"unix:{tmp_path}/api.sock")
    finally:
        api.stop()
    assert run.exit_code == 1
    assert "can't be read" in run.stderr


@pytest.mark.requires(root=True)
def test_a_socket_of_somebody_else_is_told(agent: Agent, tmp_path: Path) -> None:
    agent(HEALTHY)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    program = (
        "import os, sys\nfrom hostagent.cli import client, main, status\nimport http.client\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"sys.argv = ['hostagent', 'status', '--api', 'unix:{tmp_path}/api.sock']\nmain()"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 1
    assert "this user may not talk to the agent" in run.stderr
