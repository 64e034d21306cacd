"""Sizes and durations are read exactly, and what could mean two things is refused."""

import pytest

from hostagent.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    "text, size_bytes",
    [
        ("0", 0),
        ("1024", 1024),
        ("1KiB", 1024),
        ("1.5 kib", 1536),
        ("10MB", 10_000_000),
        ("2GiB", 2 * 2**30),
        ("1TiB", 2**40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "k", "1k", "1 M", "-1", "1e3", "0.3B", "1KiBs", "9" * 30, "1.2.3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_size(text)


@pytest.mark.parametrize(
    "text, seconds", [("0", 0), ("5", 5), ("0.5", 0.5), ("5s", 5), ("500ms", 0.5), ("1h30m", 5400), ("1d1s", 86401)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 parsecs", "5s x", "1e9", "99999999999", "5m5", "5sm"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_duration(text)


def test_written_for_people() -> None:
    assert [format_size(n) for n in (0, 1023, 1024, 2**30 * 1.5, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 GiB", "1024.0 TiB"
    ]  # fmt: skip
    assert [format_duration(s) for s in (0.25, 5, 65, 3700, 90000)] == [
        "250 ms", "5.0 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"
    ]  # fmt: skip
