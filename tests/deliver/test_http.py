"""The http output against a server that misbehaves in every way a server can."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
import zstandard

from hostagent.clock import Clock
from hostagent.deliver.compress import build_compressor
from hostagent.deliver.http_status import verdict_of, wish_s
from hostagent.deliver.outputs.http import HttpOptions, HttpOutput
from hostagent.errors import PermanentError, TemporaryError
from hostagent.model import Delivery, Outcome
from tests.deliver.hostile import Conversation, HostileServer, Request, hostile

BODY = b'{"message":"one"}\n'


def delivery(body: bytes = BODY, compression: str = "none", name: str = "abc123") -> Delivery:
    return Delivery(
        id=name, body=body, content_type="application/x-ndjson", compression=compression, records=1, observed_ns=1
    )


def output(server: HostileServer, path: str = "/in", **options: object) -> HttpOutput:
    return HttpOutput(HttpOptions(url=server.url(path), **({"timeout_s": 30.0} | options)), Clock())  # type: ignore[arg-type]


def answering(status: int, body: bytes = b"", *headers: str) -> Callable[[Conversation, Request], bool]:
    return lambda conversation, _request: conversation.answer(status, body, *headers)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_block_is_posted_under_its_id_and_says_what_it_is(compression: str) -> None:
    with hostile(answering(200)) as server:
        client = output(server, headers={"X-Tenant": "t1"})
        client.send(delivery(build_compressor(compression).compress(BODY), compression))
        client.close()
    request = server.requests[0]
    assert request.line == "POST /in HTTP/1.1"
    assert request.headers["idempotency-key"] == "abc123"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers.get("content-encoding") == (None if compression == "none" else compression)
    assert request.headers["user-agent"].startswith("hostagent/")
    assert request.headers["x-tenant"] == "t1"
    assert request.headers["host"] == f"localhost:{server.port}"
    undo: dict[str, Callable[[bytes], bytes]] = {
        "zstd": zstandard.decompress,
        "gzip": gzip.decompress,
        "none": bytes,
    }
    assert undo[compression](request.body) == BODY


@pytest.mark.parametrize(
    "script",
    [
        answering(200),
        answering(204),
        answering(200, b"x" * 5000),
        lambda conversation, _: (
            conversation.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            or True
        ),
        lambda conversation, _: (
            conversation.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            or True
        ),
    ],
    ids=["empty", "no-content", "body", "chunked", "continue"],
)
def test_the_connection_is_kept(script: Callable[[Conversation, Request], bool]) -> None:
    with hostile(script) as server:
        client = output(server)
        for number in range(5):
            assert client.send(delivery(name=str(number))).outcome is Outcome.ACKED
        client.close()
    assert [request.headers["idempotency-key"] for request in server.requests] == list("01234")
    assert server.connections == 1


def test_an_idle_connection_the_server_has_closed_is_opened_again_unseen() -> None:
    def one_answer_then_end(conversation: Conversation, _request: Request) -> bool:
        conversation.answer(200)  # says nothing about closing
        return False

    with hostile(one_answer_then_end) as server:
        client = output(server)
        for number in range(5):
            assert client.send(delivery(name=str(number))).outcome is Outcome.ACKED
        client.close()
    assert server.connections == 5
    assert [request.headers["idempotency-key"] for request in server.requests] == list("01234")


def test_a_kept_connection_that_ends_with_the_request_is_tried_once_more_with_the_same_id() -> None:
    def store_then_cut_when_kept(conversation: Conversation, request: Request) -> bool:
        server.stored.append(request)
        first_of_connection = sum(seen.connection == request.connection for seen in server.requests) == 1
        return conversation.answer(200) if first_of_connection else conversation.reset()

    with hostile(store_then_cut_when_kept) as server:
        client = output(server)
        client.send(delivery(name="one"))
        client.send(delivery(name="two"))
        client.close()
    assert [request.headers["idempotency-key"] for request in server.stored] == ["one", "two", "two"]
    assert server.stored[1].body == server.stored[2].body


def test_a_kept_connection_that_ends_within_the_answer_is_not_tried_in_secret() -> None:
    def half_when_kept(conversation: Conversation, request: Request) -> bool:
        first_of_connection = sum(seen.connection == request.connection for seen in server.requests) == 1
        if first_of_connection:
            return conversation.answer(200)
        conversation.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        return False

    with hostile(half_when_kept) as server:
        client = output(server)
        client.send(delivery(name="one"))
        with pytest.raises(TemporaryError, match="before its answer was complete"):
            client.send(delivery(name="two"))
        client.close()
    assert len(server.requests) == 2


def test_a_new_connection_that_ends_without_an_answer_is_not_tried_in_secret() -> None:
    with hostile(lambda conversation, _request: conversation.reset()) as server:
        client = output(server)
        with pytest.raises(TemporaryError, match=r"http://localhost:\d+ closed the connection before its answer"):
            client.send(delivery())
        client.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status, outcome",
    [(200, Outcome.ACKED), (201, Outcome.ACKED), (202, Outcome.ACKED), (204, Outcome.ACKED), (413, Outcome.TOO_LARGE)],
)
def test_statuses_with_a_verdict(status: int, outcome: Outcome) -> None:
    assert verdict_of(status, "http://x/", "", None, 0).outcome is outcome


@pytest.mark.parametrize("status", [400, 402, 406, 409, 411, 414, 422, 451, 499])
def test_statuses_that_refuse_for_good(status: int) -> None:
    with pytest.raises(PermanentError, match=f"http://x/ answered {status} .no such field."):
        verdict_of(status, "http://x/", "no such field", None, 0)


@pytest.mark.parametrize(
    "says",
    [
        "<html> <head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
        "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
        "Client sent an HTTP request to an HTTPS server.",
    ],
)
def test_plain_http_at_a_port_that_speaks_tls_costs_no_records(says: str) -> None:
    with pytest.raises(TemporaryError, match="write https in the url"):
        verdict_of(400, "http://x/", says, None, 0)
    with pytest.raises(PermanentError):
        verdict_of(400, "https://x/", says, None, 0)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 599, 700])
def test_statuses_that_mean_later(status: int) -> None:
    with pytest.raises(TemporaryError) as caught:
        verdict_of(status, "http://x/", "busy", "7", 0)
    assert caught.value.delay_s == 7
    assert "SIGHUP" not in str(caught.value)
    with pytest.raises(
        TemporaryError, match=r"answered \d+, to be asked again in 3600 s .SIGHUP tries at once. .busy."
    ):
        verdict_of(status, "http://x/", "busy", "999999", 0)


@pytest.mark.parametrize("status", [101, 300, 304, 401, 403, 404, 405, 407, 410, 415])
def test_statuses_an_operator_can_mend_lose_nothing_and_are_not_asked_often(status: int) -> None:
    with pytest.raises(TemporaryError, match=r"check|credentials|set") as caught:
        verdict_of(status, "http://x/", "", None, 0)
    assert (caught.value.delay_s or 0) >= (20 if status in (401, 403, 407) else 10)


@pytest.mark.parametrize(
    "text, seconds",
    [
        (None, None),
        ("", None),
        ("5", 5),
        (" 12 ", 12),
        ("0", 0),
        ("99999999999999999999", 3600),
        ("-3", None),
        ("soon", None),
        ("٣", None),
        (formatdate(1_000_090, usegmt=True), 90),
        (formatdate(999_000, usegmt=True), 0),
        ("Mon, 32 Foo 2020 99:00:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert wish_s(text, 1_000_000 * 10**9) == seconds


def test_the_answer_in_an_error_is_short_clean_and_without_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t-token\n")

    def echo(conversation: Conversation, request: Request) -> bool:
        return conversation.answer(
            400, b"\x1b[2J bad\r\nheader " + request.headers["authorization"].encode() + b"y" * 999
        )

    with hostile(echo) as server:
        client = output(server, bearer_token_file=str(token))
        with pytest.raises(PermanentError) as caught:
            client.send(delivery())
        client.close()
    text = str(caught.value)
    assert server.requests[0].headers["authorization"] == "Bearer s3cr3t-token"
    assert "s3cr3t" not in text
    assert text.isprintable()
    assert "bad header Bearer ***" in text
    assert len(text) < 300


APACHE = (
    b'<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">\n<html><head>\n<title>400 Bad Request</title>\n</head><body>\n'
    b"<h1>Bad Request</h1>\n<p>Your browser sent a request that this server could not understand.<br />\n"
    b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />\n</p>\n</body></html>\n"
)


def test_of_a_servers_own_page_the_words_are_told() -> None:
    with hostile(answering(400, APACHE)) as server:
        client = output(server)
        with pytest.raises(TemporaryError, match=r"write https in the url .400 Bad Request Bad Request Your browser"):
            client.send(delivery())
        client.close()


def test_a_token_that_was_replaced_is_used_at_the_next_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def gate(conversation: Conversation, request: Request) -> bool:
        return conversation.answer(200 if request.headers["authorization"] == "Bearer new" else 401)

    with hostile(gate) as server:
        client = output(server, bearer_token_file=str(token))
        with pytest.raises(TemporaryError, match="401: it does not accept the credentials"):
            client.send(delivery())
        fresh = tmp_path / "fresh"
        fresh.write_text("new")
        fresh.replace(token)
        assert client.send(delivery()).outcome is Outcome.ACKED
        token.unlink()
        with pytest.raises(TemporaryError, match=r"token can't be read"):
            client.send(delivery())
        token.write_text("two\nlines")
        with pytest.raises(TemporaryError, match="single line"):
            client.send(delivery())
        client.close()


def test_basic_credentials_come_from_a_name_and_a_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("päss:word\n")
    with hostile(answering(200)) as server:
        client = output(server, username="shipper", password_file=str(password))
        client.send(delivery())
        client.close()
    assert server.requests[0].headers["authorization"] == "Basic c2hpcHBlcjpww6Rzczp3b3Jk"


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_on_the_same_server_is_followed_with_the_same_body(status: int) -> None:
    def move(conversation: Conversation, request: Request) -> bool:
        if request.line.startswith("POST /in "):
            return conversation.answer(status, b"", "Location: /there?x=1")
        return conversation.answer(200)

    with hostile(move) as server:
        client = output(server)
        client.send(delivery())
        client.send(delivery())
        client.close()
    paths = [request.line.split()[1] for request in server.requests]
    assert paths == (["/in", "/there?x=1"] * 2 if status == 307 else ["/in", "/there?x=1", "/there?x=1"])
    assert {request.body for request in server.requests} == {BODY}


@pytest.mark.parametrize(
    "status, location",
    [
        (301, "/there"),
        (302, "/there"),
        (303, "/there"),
        (307, "http://elsewhere.invalid/in"),
        (307, "https://localhost/in"),
        (307, "http://[bad"),
        (308, ""),
    ],
)
def test_a_redirect_elsewhere_is_refused_and_says_where_to(status: int, location: str) -> None:
    with hostile(answering(status, b"", f"Location: {location}")) as server:
        client = output(server)
        with pytest.raises(TemporaryError, match=f"answered {status}, a redirect to .*set url"):
            client.send(delivery())
        client.close()
    assert len(server.requests) == 1


def test_a_circle_of_redirects_ends() -> None:
    with hostile(answering(307, b"", "Location: /in")) as server:
        client = output(server)
        with pytest.raises(TemporaryError, match="in a circle"):
            client.send(delivery())
        client.close()
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "said, message",
    [
        (b"", "closed the connection before its answer was complete"),
        (b"HTTP/1.1 2", "does not answer in HTTP|before its answer"),
        (b"HTTP/1.1 200", "before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "closed the connection before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf", "before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnumber?\r\n", "does not answer in HTTP"),
        (b"220 mail.example ESMTP\r\n", "does not answer in HTTP .*check the url"),
        (b"\x00\xff\xfe" * 40000, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 000 \r\nContent-Length: 0\r\n\r\n", "does not answer in HTTP|answered"),
    ],
)
def test_half_an_answer_and_nonsense_are_tried_again_later(said: bytes, message: str) -> None:
    with hostile(lambda conversation, _request: conversation.raw(said)) as server:
        client = output(server)
        with pytest.raises(TemporaryError, match=message):
            client.send(delivery())
        client.close()
    assert len(server.requests) == 1


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    stopped = threading.Event()

    def endless(conversation: Conversation, _request: Request) -> bool:
        conversation.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                conversation.sock.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        finally:
            stopped.set()

    with hostile(endless) as server:
        client = output(server)
        assert client.send(delivery()).outcome is Outcome.ACKED
        assert stopped.wait(20), "the connection was left open"
        assert client.send(delivery()).outcome is Outcome.ACKED
        client.close()
    assert server.connections == 2


def test_a_refusal_before_the_body_was_read_counts() -> None:
    def refuse(conversation: Conversation) -> bool:
        conversation.sock.recv(1000)
        conversation.answer(413, b"", "Connection: close")
        conversation.sock.shutdown(socket.SHUT_WR)
        while conversation.sock.recv(1 << 16):
            pass
        return False

    with hostile(answering(200), early=refuse) as server:
        client = output(server)
        assert client.send(delivery(b"x" * 8_000_000)).outcome is Outcome.TOO_LARGE
        client.close()


def test_a_yes_before_the_body_was_sent_is_no_ack() -> None:
    def hasty(conversation: Conversation) -> bool:
        conversation.sock.recv(1000)
        conversation.answer(200, b"", "Connection: close")
        return conversation.reset()

    with hostile(answering(200), early=hasty) as server:
        client = output(server)
        with pytest.raises(TemporaryError):
            client.send(delivery(b"x" * 30_000_000))
        client.close()


def say_nothing(_conversation: Conversation, done: threading.Event) -> None:
    done.wait(20)


def drip(conversation: Conversation, done: threading.Event) -> None:
    conversation.sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while not done.wait(0.02):
        conversation.sock.sendall(b"X-Drip: y\r\n")


@pytest.mark.parametrize("answer", [say_nothing, drip])
def test_an_answer_has_one_deadline_for_all_of_it(answer: Callable[[Conversation, threading.Event], None]) -> None:
    done = threading.Event()

    def late(conversation: Conversation, _request: Request) -> bool:
        answer(conversation, done)
        return False

    with hostile(late) as server:
        client = output(server, timeout_s=0.2)
        with pytest.raises(TemporaryError, match="did not answer in time"):
            client.send(delivery())
        client.close()
        done.set()


def test_nobody_listens() -> None:
    with socket.socket() as bound:  # so that nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        client = HttpOutput(HttpOptions(url=f"http://127.0.0.1:{port}/"), Clock())
        with pytest.raises(
            TemporaryError, match=f"http://127.0.0.1:{port} refused the connection; check that it is running"
        ):
            client.send(delivery())


def test_a_name_that_does_not_resolve() -> None:
    client = HttpOutput(HttpOptions(url="http://nowhere.invalid/"), Clock())
    with pytest.raises(TemporaryError, match=r"http://nowhere\.invalid can't be reached: its name can't be resolved"):
        client.send(delivery())


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with hostile(answering(200)) as server:
        client = output(server)
        assert client.send(delivery()).outcome is Outcome.ACKED
        client.close()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"url": "ftp://x/"}, "url: must be http"),
        ({"url": "http:///x"}, "url: must be http"),
        ({"url": "http://u:p@x/"}, "url: must not hold credentials"),
        ({"url": "http://x:99999/"}, "url: "),
        ({"url": "http://x/a b"}, "url: must be plain ASCII"),
        ({"url": "http://x/\r\nX: y"}, "url: "),
        ({"url": "http://x/ü"}, "url: must be plain ASCII"),
        ({"url": "http://x/", "headers": {"X": "a\r\nY: b"}}, "headers: "),
        ({"url": "http://x/", "headers": {"X Y": "a"}}, "headers: "),
        ({"url": "http://x/", "headers": {"content-length": "1"}}, "set by the agent itself"),
        ({"url": "http://x/", "username": "u"}, "goes together with password_file"),
        ({"url": "http://x/", "client_key_file": "k"}, "needs client_certificate_file"),
        (
            {"url": "http://x/", "username": "u", "password_file": "p", "bearer_token_file": "t"},
            "one way to authenticate",
        ),
    ],
)
def test_options_that_can_not_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HttpOptions(**options)  # type: ignore[arg-type]


def documented_statuses() -> dict[str, set[int]]:
    """The table of docs/outputs.md: what is done → for which statuses."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "outputs.md").read_text()
    table = page.partition("### What a status means")[2].partition("### ")[0]
    found: dict[str, set[int]] = {}
    for row in re.findall(r"^\| (\d.*?) \| .*? \| (.*?) \|$", table, re.MULTILINE):
        numbers: set[int] = set()
        for first, last in re.findall(r"(\d{3})(?:\u2013(\d{3}))?", row[0]):
            numbers |= set(range(int(first), int(last or first) + 1))
        found.setdefault(row[1].partition(";")[0].partition(",")[0], set()).update(numbers)
    return found


def decided(status: int) -> str:
    try:
        verdict = verdict_of(status, "http://x/", "", None, 0)
    except PermanentError:
        return "dead letters"
    except TemporaryError as error:
        return "again later" if error.delay_s is None else f"again every {error.delay_s:.0f} s or more"
    return "ack" if verdict.outcome is Outcome.ACKED else "halve it"


def test_the_documented_table_is_what_the_code_does() -> None:
    documented = documented_statuses()
    followed = documented.pop("followed within the same scheme")
    assert followed == {307, 308}
    for what, statuses in documented.items():
        assert {decided(status) for status in statuses} == {what}
    named = set.union(*documented.values())
    assert {decided(status) for status in range(400, 500) if status not in named} == {"dead letters"}
