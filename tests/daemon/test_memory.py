"""What the collector looks through: everything but the agent as it was made, and everything again when it runs."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from hostagent.daemon.memory import made_to_stay


class Knot:
    """Refers to itself, so that only the collector can take it away."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.collect()


def test_what_is_made_to_stay_is_not_looked_through() -> None:
    with made_to_stay():
        kept = weakref.ref(Knot())
    gc.collect()
    assert kept() is not None


def test_what_comes_afterwards_is() -> None:
    with pytest.raises(ValueError, match="no such agent"), made_to_stay():
        raise ValueError("no such agent")
    knots = [weakref.ref(Knot()) for _ in range(10 * gc.get_threshold()[0])]
    assert any(knot() is None for knot in knots), "the collector has to run again by itself"
