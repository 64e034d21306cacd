"""Answers in HTTP/1.1, whole and in pieces: what is understood, what is refused, and how much is read of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from hostagent.deliver.http_answer import (
    ALL_LINES_BYTES,
    LONGEST_ANSWER_BYTES,
    LONGEST_LINE_BYTES,
    MOST_FIELDS,
    Answer,
    BrokenOffError,
    NotHttpError,
    Receive,
    read_answer,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def giving(pieces: Iterable[bytes]) -> Receive:
    """Gives the pieces, then the end for ever."""
    left: Iterator[bytes] = iter(pieces)
    return lambda: next(left, b"")


def outcome(pieces: Iterable[bytes]) -> Answer | str:
    try:
        return read_answer(giving(pieces))
    except (NotHttpError, BrokenOffError) as error:
        return type(error).__name__


# What is said → status, body, whether the connection can be kept.
UNDERSTOOD: dict[bytes, tuple[int, bytes, bool]] = {
    OK + b"Content-Length: 0\r\n\r\n": (200, b"", True),
    OK + b"content-length:3 \r\n\r\nabc": (200, b"abc", True),
    b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc": (200, b"abc", True),
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n": (200, b"", True),
    b"HTTP/1.1 204 \r\n\r\n": (204, b"", True),
    b"HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n": (304, b"", True),
    b"HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n": (204, b"", True),
    OK + b"Content-Length: 3, 3\r\nContent-Length: 3\r\n\r\nabc": (200, b"abc", True),
    OK + b"X-Folded: a\r\n b\r\n\tc\r\nContent-Length: 0\r\n\r\n": (200, b"", True),
    OK + b"Empty:\r\nContent-Length: 0\r\n\r\n": (200, b"", True),
    # how long the connection lasts
    OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n": (200, b"", False),
    OK + b"Content-Length: 0\r\nConnection: x, Close\r\n\r\n": (200, b"", False),
    OK + b"Content-Length: 0\r\nConnection: x\r\nConnection: close\r\n\r\n": (200, b"", False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n": (200, b"", False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n": (200, b"", True),
    b"HTTP/1.0 200 OK\r\n\r\nabc": (200, b"abc", False),
    OK + b"\r\nto the end": (200, b"to the end", False),
    OK + b"\r\n": (200, b"", False),
    OK + b"Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nabc": (200, b"abc", False),
    OK + b"Content-Length: 3\r\n\r\nabcHTTP/1.1 500 Unasked\r\n": (200, b"abc", False),
    # chunks
    CHUNKED + b"0\r\n\r\n": (200, b"", True),
    CHUNKED + b'3\r\nabc\r\n00A ;why="x"\r\n0123456789\r\n0\r\n\r\n': (200, b"abc0123456789", True),
    CHUNKED + b"3\nabc\n0\n\n": (200, b"abc", True),
    CHUNKED + b"1\r\na\r\n0\r\nTrailer: x\r\n\r\n": (200, b"a", True),
    OK + b"Transfer-Encoding: gzip, Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n": (200, b"a", True),
    OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n": (200, b"a", False),
    # interim answers
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n": (200, b"", True),
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 204 \r\n\r\n": (204, b"", True),
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n": (101, b"", False),
}  # fmt: skip

REFUSED = {
    b"\r\n",
    b"220 mail.example ESMTP\r\n",
    b"HTTP/2 200 OK\r\n",
    b"HTTP/0.9 200 OK\r\n",
    b"HTTP/1.1 20 OK\r\n",
    b"HTTP/1.1 2000 OK\r\n",
    b"HTTP/1.1 099 OK\r\n",
    b"HTTP/1.1 +20 OK\r\n",
    b"HTTP/1.1  200 OK\r\n",
    b" HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 ²00 OK\r\n".encode("latin-1"),
    OK + b"no colon\r\n",
    OK + b": no name\r\n",
    OK + b"Content-Length : 3\r\n",
    OK + b" folded before any field\r\n",
    OK + b"X: a\x00b\r\n",
    OK + b"X: a\rContent-Length: 0\r\n",
    OK + "Contént: a\r\n".encode(),
    OK + b"Content-Length: 3, 4\r\n\r\nabcd",
    OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    OK + b"Content-Length: -1\r\n\r\n",
    OK + b"Content-Length: +1\r\n\r\na",
    OK + b"Content-Length: 1_0\r\n\r\n0123456789",
    OK + b"Content-Length: 0x1\r\n\r\na",
    OK + b"Content-Length:\r\n\r\n",
    OK + "Content-Length: ¹\r\n\r\na".encode("latin-1"),
    OK + b"Content-Length: 9999999999999999999\r\n\r\n",
    CHUNKED + b"\r\n",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"0x1\r\na\r\n",
    CHUNKED + b" 1\r\na\r\n",
    CHUNKED + b"11111111111111111\r\n",
    CHUNKED + b"1\r\nab\r\n",
    CHUNKED + b"0\r\nno colon\r\n",
}


@pytest.mark.parametrize("said", UNDERSTOOD)
def test_what_is_understood_does_not_depend_on_how_it_comes_in(said: bytes) -> None:
    whole = read_answer(giving([said]))
    assert (whole.status, whole.body, whole.keep) == UNDERSTOOD[said]
    assert outcome(said[at : at + 1] for at in range(len(said))) == whole or b"Unasked" in said
    for cut in range(1, len(said)):
        seen = outcome([said[:cut], said[cut:]])
        # A byte nobody asked for can only be seen when it comes with one that was.
        assert seen == whole or (b"Unasked" in said and seen == whole._replace(keep=True))


@pytest.mark.parametrize("said", sorted(REFUSED))
def test_what_is_no_http_is_refused_however_it_comes_in(said: bytes) -> None:
    assert outcome([said]) == "NotHttpError"
    for cut in range(1, len(said)):
        assert outcome([said[:cut], said[cut:]]) == "NotHttpError"


@pytest.mark.parametrize("said", [said for said, (_, _, keep) in UNDERSTOOD.items() if keep])
def test_an_answer_that_breaks_off_anywhere_is_none(said: bytes) -> None:
    for cut in range(len(said)):
        assert outcome([said[:cut]]) == "BrokenOffError", said[:cut]


def test_an_error_of_the_connection_is_passed_on_and_is_no_end() -> None:
    def resetting() -> Receive:
        pieces = iter([OK + b"\r\nhalf"])

        def receive() -> bytes:
            for piece in pieces:
                return piece
            raise ConnectionResetError

        return receive

    with pytest.raises(ConnectionResetError):
        read_answer(resetting())


def test_headers_are_found_by_their_name_in_lower_case_and_joined_when_they_come_again() -> None:
    said = OK + b"Retry-After: \t7 \r\nX-A: 1\r\nx-a: 2\r\nX-B: caf\xe9\r\nX-C: a\r\n  b\r\nContent-Length: 0\r\n\r\n"
    headers = read_answer(giving([said])).headers
    assert headers == {"retry-after": "7", "x-a": "1, 2", "x-b": "café", "x-c": "a b", "content-length": "0"}


def counted(said: Iterable[bytes]) -> tuple[Receive, list[int]]:
    """Gives pieces without end, and how many bytes were taken."""
    taken = [0]

    def pieces() -> Iterator[bytes]:
        for piece in said:
            taken[0] += len(piece)
            yield piece

    return giving(pieces()), taken


def endless(begin: bytes, more: bytes) -> Iterator[bytes]:
    yield begin
    while True:
        yield more


@pytest.mark.parametrize(
    "begin, more, longest",
    [
        (b"x", b"x", LONGEST_LINE_BYTES),
        (b"HTTP/1.1 200 ", b"x" * 1000, LONGEST_LINE_BYTES),
        (OK + b"X: ", b"x" * 1000, LONGEST_LINE_BYTES),
        (OK, b"X: y\r\n", 6 * MOST_FIELDS),
        (OK, b"X: " + b"y" * 10_000 + b"\r\n", ALL_LINES_BYTES),
        (OK + b"X: y\r\n", b" folded\r\n", 9 * MOST_FIELDS),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", ALL_LINES_BYTES),
        (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\na\r\n", ALL_LINES_BYTES),
        (CHUNKED + b"0\r\n", b"X: y\r\n", 6 * MOST_FIELDS),
    ],
)
def test_what_has_no_end_is_refused_before_it_takes_much(begin: bytes, more: bytes, longest: int) -> None:
    receive, taken = counted(endless(begin, more))
    with pytest.raises(NotHttpError):
        read_answer(receive)
    assert taken[0] <= len(begin) + longest + 2 * len(more)


@pytest.mark.parametrize(
    "begin, more",
    [
        (OK + b"\r\n", b"x" * 1000),
        (OK + b"Content-Length: 999999999999999999\r\n\r\n", b"x" * 1000),
        (CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        (CHUNKED + b"ffffffffffffffff\r\n", b"x" * 1000),
    ],
)
def test_a_body_is_read_as_far_as_anybody_would_look(begin: bytes, more: bytes) -> None:
    receive, taken = counted(endless(begin, more))
    answer = read_answer(receive)
    assert (answer.status, answer.body, answer.keep) == (200, b"x" * LONGEST_ANSWER_BYTES, False)
    assert taken[0] <= len(begin) + LONGEST_ANSWER_BYTES * 1.01 + 2 * len(more)


def test_a_body_of_just_the_longest_length_leaves_the_connection_usable() -> None:
    body = b"x" * LONGEST_ANSWER_BYTES
    whole = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = CHUNKED + b"8000\r\n" + body[:0x8000] + b"\r\n8000\r\n" + body[0x8000:] + b"\r\n0\r\n\r\n"
    for said in (whole, pieces):
        answer = read_answer(giving([said]))
        assert (answer.body, answer.keep) == (body, True)
