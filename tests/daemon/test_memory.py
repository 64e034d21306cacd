"""What the agent loads, and what the collector looks through: all but the agent as made, and all when it runs."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.daemon.memory import made_to_stay
from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.waiting import wait_for


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


def test_who_sends_over_plain_http_does_not_pay_for_openssl(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\n")
    with Backend(tmp_path / "backend") as backend:
        config = {
            "sources": {"files": {"type": "file", "include": [str(log)], "start_at": "beginning"}},
            "outputs": {"main": {"type": "http", "url": backend.url()}},
        }
        with Agent(tmp_path / "agent", config) as agent:
            agent.start()
            wait_for(lambda: list(backend.new_arrivals()), "the line")
            loaded = Path(f"/proc/{agent.pid}/maps").read_text()
            agent.stop()
    assert "python3" in loaded
    assert not [name for name in ("libcrypto", "libssl", "_hashlib", "_ssl") if name in loaded]
