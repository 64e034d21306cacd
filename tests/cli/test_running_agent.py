"""A real agent answers `status`, `files`, `explain` and a scrape truthfully, while its outputs do well and badly."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostagent.observe.catalogue import CATALOGUE
from tests.support.agent import Agent
from tests.support.waiting import wait_for

LINES = 500


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("line\n" * LINES)
    config = {
        "api": {"listen": [f"unix:{tmp_path}/agent/api.sock", "127.0.0.1:0"]},
        "limits": {"stop_timeout": "1s"},
        "sources": {"app": {"type": "file", "include": [f"{tmp_path}/logs/*.log"]}},
        "outputs": {
            "good": {"type": "blackhole"},
            "bad": {"type": "http", "url": "http://127.0.0.1:9/", "spool": {"max_bytes": 0}},
        },
    }
    with Agent(tmp_path / "agent", config) as running:
        running.start()
        running.wait_ready()
        yield running


def status(agent: Agent) -> dict[str, Any]:
    run = agent.call("status", "--json")
    assert run.stdout, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def outputs(agent: Agent) -> dict[str, dict[str, Any]]:
    return {output["name"]: output for output in status(agent)["outputs"]}


def samples(page: str) -> dict[str, float]:
    found = re.findall(r"^([a-z_]+(?:\{.*?\})?) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_status_files_and_metrics_agree_with_what_was_written(agent: Agent) -> None:
    def good_has_all() -> bool:
        return int(outputs(agent)["good"]["delivered_records"]) == LINES and outputs(agent)["bad"]["state"] != "ok"

    wait_for(good_has_all, "one output to deliver and the other to fail")
    report = status(agent)
    assert report["health"]["healthy"]
    assert [(one["name"], one["files"], one["read_records"]) for one in report["sources"]] == [("app", 1, LINES)]
    bad = outputs(agent)["bad"]
    assert (bad["delivered_records"], bad["behind_bytes"]) == (0, LINES * 5)
    assert "refused" in bad["last_error"]
    text = agent.call("status").stdout
    assert text.startswith("healthy")
    assert "refused" in text

    def reached() -> dict[str, int]:
        (file,) = agent.answer("files")["files"]
        assert file["size_bytes"] == LINES * 5
        return {one["output"]: one["offset"] for one in file["positions"]}

    wait_for(lambda: reached() == {"good": LINES * 5, "bad": 0}, "the ack of what was delivered")
    assert agent.call("files", "--behind").stdout.count("a.log") == 1
    page = samples(agent.get("/metrics")[1])
    assert page['hostagent_source_read_records_total{source="app"}'] == LINES
    assert page['hostagent_output_delivered_records_total{output="good"}'] == LINES
    assert page['hostagent_output_delivered_bytes_total{output="good"}'] == LINES * 5
    assert page['hostagent_source_lag_bytes{source="app",output="bad"}'] == LINES * 5
    assert page['hostagent_output_up{output="bad"}'] == 0


def test_every_metric_of_the_catalogue_is_exposed(agent: Agent) -> None:
    page = agent.get("/metrics")[1]
    assert [metric.name for metric in CATALOGUE if f"\n# TYPE {metric.name} {metric.kind}\n" not in page] == []


def test_explain_knows_what_is_read_and_what_is_not(agent: Agent, tmp_path: Path) -> None:
    read = agent.answer("explain", f"{tmp_path}/logs/a.log")
    assert (read["collected"], read["source"]) == (True, "app")
    assert read["steps"][0].startswith(f"it is a regular file of {LINES * 5} bytes")
    other = agent.call("explain", f"{tmp_path}/logs/a.txt").stdout
    assert "not collected" in other
    assert "according to the running agent" in other


def test_a_second_agent_on_the_same_socket_is_refused(agent: Agent, tmp_path: Path) -> None:
    second = Agent(tmp_path / "second", {**agent.config, "data_dir": str(tmp_path / "second" / "state")})
    run = second.call("run")
    assert run.returncode == 1
    assert "a running agent answers there" in run.stderr
    assert "Traceback" not in run.stderr
    assert agent.get("/readyz")[0] == 200


def test_the_socket_is_gone_after_the_agent(agent: Agent) -> None:
    assert agent.stop() == 0
    assert not (agent.directory / "api.sock").exists()
    run = agent.call("status")
    assert (run.returncode, "no running agent answers" in run.stderr) == (1, True)


def test_tcp_serves_metrics_and_health_only(agent: Agent) -> None:
    inodes = {line.split()[9] for line in Path(f"/proc/{agent.pid}/net/tcp").read_text().splitlines()[1:]}
    sockets = dict(agent.open_files())
    mine = [
        int(line.split()[1].rpartition(":")[2], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if f"socket:[{line.split()[9]}]" in sockets and line.split()[3] == "0A" and line.split()[9] in inodes
    ]
    (port,) = mine
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
        assert answer.read() == b"ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10)
