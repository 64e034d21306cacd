"""The judges themselves: an oracle or a receiver that can't find a planted fault would pass every agent."""

import gzip
import http.client
from pathlib import Path

import orjson
import pytest
import zstandard

from tests.support.backend import Backend
from tests.support.lines import make_line
from tests.support.oracle import Findings, Oracle
from tests.support.streams import ROTATIONS, LogStream
from tests.support.writer import Load, Writer


def judge(messages: list[str], written: int) -> Findings:
    oracle = Oracle()
    for message in messages:
        oracle.take_message(message)
    return oracle.findings({"app": written})


def lines(*numbers: int) -> list[str]:
    return [make_line("app", 0, number).decode().rstrip("\n") for number in numbers]


def test_the_oracle_is_content_with_every_line_once() -> None:
    assert judge(lines(0, 1, 2, 3), 4).clean


def test_the_oracle_finds_lost_lines() -> None:
    assert judge(lines(0, 3), 6).lost == {"app": [(1, 3), (4, 6)]}


def test_the_oracle_finds_a_line_that_came_twice() -> None:
    assert judge(lines(0, 1, 1), 2).twice == 1


def test_the_oracle_finds_an_altered_byte() -> None:
    first, second = lines(0, 1)
    findings = judge([first, second.replace("0", "1", 1)], 2)
    assert len(findings.altered) == 1
    assert findings.lost == {"app": [(1, 2)]}


def test_the_oracle_finds_disorder_within_a_generation() -> None:
    assert judge(lines(1, 0), 2).disordered == ["app generation 0: 0 after 1"]


def test_generations_have_no_order_among_themselves() -> None:
    newer = make_line("app", 1, 1).decode().rstrip("\n")
    assert judge([newer, *lines(0)], 2).clean


@pytest.mark.parametrize("how", ROTATIONS)
def test_the_writer_loses_nothing_by_rotating(tmp_path: Path, how: str) -> None:
    stream = LogStream(tmp_path, "app")
    for _ in range(3):
        stream.write(5)
        stream.write_half(0.5)
        stream.rotate(how)
    stream.write(2)
    stream.close()
    oracle = Oracle()
    inodes = set()
    for path in sorted(tmp_path.iterdir()):
        if (inode := path.stat().st_ino) not in inodes:
            inodes.add(inode)
            content = path.read_bytes()
            for line in gzip.decompress(content).splitlines() if path.suffix == ".gz" else content.splitlines():
                oracle.take_message(line.decode())
    findings = oracle.findings({"app": stream.next_seq})
    assert not findings.lost
    assert not findings.twice


def test_the_writer_process_says_what_it_wrote(tmp_path: Path) -> None:
    with Writer(Load(str(tmp_path), streams=2, bytes_per_s=1e6)) as writer:
        while min(writer.state().values()) < 100:
            pass
        written = writer.stop()
    assert {path.name.removesuffix(".log"): path.read_bytes().count(b"\n") for path in tmp_path.iterdir()} == written


def post(backend: Backend, body: bytes, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=10)
    try:
        connection.request("POST", "/ingest", body, {"Idempotency-Key": key, "Content-Encoding": "zstd"})
        return connection.getresponse().status
    finally:
        connection.close()


def body(text: str) -> bytes:
    return zstandard.compress(orjson.dumps({"message": text}) + b"\n")


def test_a_repeated_key_is_answered_but_stored_once(backend: Backend) -> None:
    assert [post(backend, body("a"), "k1"), post(backend, body("a"), "k1")] == [200, 200]
    assert [list(arrival.records()) for arrival in backend.new_arrivals()] == [[{"message": "a"}]]
    assert backend.stats()["repeated"] == 1


def test_the_same_key_with_other_bytes_is_a_violation(backend: Backend) -> None:
    post(backend, body("a"), "k1")
    post(backend, body("b"), "k1")
    with pytest.raises(AssertionError, match="other bytes"):
        list(backend.new_arrivals())


@pytest.mark.parametrize("kind", ["stored_then_reset", "half_answer"])
def test_what_was_stored_without_an_answer_counts_once(backend: Backend, kind: str) -> None:
    backend.behave(kind, times=1)
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        post(backend, body("a"), "k1")
    assert post(backend, body("a"), "k1") == 200
    assert len(list(backend.new_arrivals())) == 1


@pytest.mark.parametrize("kind", ["cut", "status", "too_large"])
def test_what_was_refused_is_not_stored(backend: Backend, kind: str) -> None:
    backend.behave(kind)
    if kind == "cut":
        with pytest.raises(ConnectionError):
            post(backend, body("a"), "k1")
    else:
        assert post(backend, body("a"), "k1") in {413, 503}
    assert list(backend.new_arrivals()) == []


def test_what_is_stored_already_is_not_too_large(backend: Backend) -> None:
    assert post(backend, body("a"), "k1") == 200
    backend.behave("too_large")
    assert [post(backend, body("a"), "k1"), post(backend, body("b"), "k2")] == [200, 413]
    assert len(list(backend.new_arrivals())) == 1


def test_a_refusing_backend_listens_again_on_the_same_port(backend: Backend) -> None:
    backend.behave("refuse")
    with pytest.raises(ConnectionRefusedError):
        post(backend, body("a"), "k1")
    backend.behave()
    assert post(backend, body("a"), "k1") == 200


def test_an_unknown_behaviour_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="no kind of behaviour"):
        backend.behave("sulk")
