"""The raw framing: lines in, lines out, whatever they hold and however the file is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.process.chain import Chain
from hostagent.process.charset import charset_of
from hostagent.process.framing.raw import RawFraming
from tests.process.reading import assert_cuts_do_not_show, bare, whole

HOSTILE = [
    b"\n",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xe2\x82",
    b"\xe2\x82\xac",
    b"\xf0\x9f\x9a\x80",
    b"\0",
    b'"',
    b"\\",
    b"abcdefgh",
    b"",
]
content = st.lists(st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=4)), max_size=30).map(b"".join)
stops = st.lists(st.integers(0, 120), max_size=6)


def raw(encoding: str = "utf-8", max_line_bytes: int = 1 << 20) -> Chain:
    return Chain(framing=RawFraming(charset_of(encoding)), charset=charset_of(encoding), max_line_bytes=max_line_bytes)


def messages(chain: Chain, data: bytes) -> list[str]:
    return [one["message"] for one in bare(whole(chain, data).batches)]


@given(content, stops, st.sampled_from([4, 7, 20, 1 << 20]))
def test_cuts_between_reads_do_not_show(data: bytes, at: list[int], limit: int) -> None:
    assert_cuts_do_not_show(raw(max_line_bytes=limit), data, at)


@given(content)
def test_every_line_is_a_record(data: bytes) -> None:
    lines = data.split(b"\n")
    expected = lines[:-1] if lines[-1] == b"" else lines
    assert messages(raw(), data) == [line.decode("utf-8", "replace") for line in expected]


def test_a_line_without_its_end_waits_for_it() -> None:
    done = raw().process(b"one\ntwo", {}, final=False)
    assert done.consumed == 4
    assert raw().process(b"two", {}, final=False).batches == []


def test_a_long_line_is_cut_and_its_pieces_are_marked() -> None:
    done = whole(raw(max_line_bytes=8), b"ab\nabcdefghijklmnopqr\nabcdefgh\nx")
    assert bare(done.batches) == [
        {"message": "ab"},
        {"partial": True, "message": "abcdefgh"},
        {"partial": True, "message": "ijklmnop"},
        {"message": "qr"},
        {"message": "abcdefgh"},
        {"message": "x"},
    ]


def test_a_long_line_is_cut_between_characters() -> None:
    assert messages(raw(max_line_bytes=4), "aa€€\n".encode()) == ["aa", "€", "€"]


def test_invalid_bytes_are_replaced_and_counted_by_the_record() -> None:
    done = whole(raw(), b"ok\n\xff\xfe\nok\n\xc3\n")
    assert [one["message"] for one in bare(done.batches)] == ["ok", "\ufffd\ufffd", "ok", "\ufffd"]
    assert done.invalid_utf8 == 2


def test_invalid_bytes_can_be_carried_as_base64() -> None:
    done = whole(Chain(framing=RawFraming(), invalid_utf8="base64"), b"ok\n\xff\xfe\nfine\n")
    assert bare(done.batches) == [{"message": "ok"}, {"message_base64": "//4="}, {"message": "fine"}]
    assert done.invalid_utf8 == 1


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "gb18030", "shift_jis", "utf-16-le", "utf-16-be"])
def test_other_encodings_become_utf8(encoding: str) -> None:
    text = "plain\n\nend äöü\n" if encoding in ("latin-1", "cp1252") else "plain\n\n日本語 テスト\nend\n"
    done = whole(raw(encoding), text.encode(encoding))
    assert [one["message"] for one in bare(done.batches)] == text.split("\n")[:-1]
    assert done.consumed == len(text.encode(encoding))
    assert done.invalid_utf8 == 0


@given(content, stops, st.sampled_from(["latin-1", "gb18030", "shift_jis", "euc_jp", "utf-16-le", "utf-16-be"]))
def test_cuts_do_not_show_in_other_encodings(data: bytes, at: list[int], encoding: str) -> None:
    assert_cuts_do_not_show(raw(encoding), data, at)
    assert_cuts_do_not_show(raw(encoding, max_line_bytes=8), data, at)


def test_a_line_feed_inside_a_utf16_character_ends_no_line() -> None:
    text = "a\u0a0ab\n\u0d0a\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert messages(raw(encoding), text.encode(encoding)) == ["a\u0a0ab", "\u0d0a"]


def test_byte_order_marks_are_no_part_of_the_text() -> None:
    data = "\ufeffone\n\ufefftwo\n".encode("utf-16-le")
    assert messages(raw("utf-16-le"), data) == ["one", "two"]


@pytest.mark.parametrize("name", ["utf-16", "utf-7", "iso2022_jp", "hz", "no-such", "rot13"])
def test_an_encoding_that_cannot_be_read_is_refused_with_what_can(name: str) -> None:
    with pytest.raises(ValueError, match="utf-16-le"):
        charset_of(name)
