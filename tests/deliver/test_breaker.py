"""When an output counts as down."""

from __future__ import annotations

from hostagent.deliver.breaker import OPEN_AFTER_FAILURES, OPEN_AFTER_S, Breaker


def test_a_single_failure_is_a_hiccup_until_it_lasts() -> None:
    breaker = Breaker()
    assert breaker.opens_in_s(0.0) is None
    breaker.failed(100.0)
    assert breaker.failing
    assert not breaker.open(100.0 + OPEN_AFTER_S / 2)
    assert breaker.opens_in_s(100.0 + OPEN_AFTER_S / 2) == OPEN_AFTER_S / 2
    assert breaker.open(100.0 + OPEN_AFTER_S)


def test_many_failures_open_it_however_fast_they_come() -> None:
    breaker = Breaker()
    for _ in range(OPEN_AFTER_FAILURES - 1):
        breaker.failed(1.0)
    assert not breaker.open(1.0)
    breaker.failed(1.0)
    assert breaker.open(1.0)


def test_an_answer_closes_it() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(1.0)
    breaker.succeeded()
    assert not breaker.failing
    assert not breaker.open(1000.0)
    breaker.failed(1000.0)
    assert not breaker.open(1000.0)
