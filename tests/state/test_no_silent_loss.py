"""Whatever happens to a spool, its mark and its database, in whatever order: no block is lost without an entry."""

from pathlib import Path

import pytest

from tests.state.lives import Life


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_silently(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    for _ in range(25):
        life.step()
    assert life.lost_silently() == [], life.story
