"""The byte-credit pool keeps every lane going while one of them is stuck."""

from __future__ import annotations

from hostagent.deliver.credits import Credits


def test_one_lane_may_use_its_own_share_and_all_that_is_shared() -> None:
    pool = Credits(100, 2)
    taken = 0
    while pool.room("a"):
        pool.take("a", 5)
        taken += 5
    assert taken == 75
    assert pool.used_bytes() == 75


def test_a_stuck_lane_leaves_the_others_their_share() -> None:
    pool = Credits(100, 2)
    while pool.room("stuck"):
        pool.take("stuck", 5)
    for _ in range(100):
        assert pool.room("b")
        pool.take("b", 25)
        assert not pool.room("b")
        pool.give("b", 25)


def test_give_says_that_somebody_waits_once() -> None:
    pool = Credits(10, 1)
    pool.take("a", 10)
    assert pool.give("a", 1) is False
    pool.take("a", 1)
    assert not pool.room("a")
    assert pool.give("a", 5) is True
    assert pool.give("a", 5) is False


def test_what_was_taken_comes_back_whole() -> None:
    pool = Credits(100, 3)
    for lane, size in (("a", 40), ("b", 7), ("c", 90)):
        pool.take(lane, size)
    for lane, size in (("b", 7), ("c", 90), ("a", 40)):
        pool.give(lane, size)
    assert pool.used_bytes() == 0
    assert all(pool.room(lane) for lane in "abc")


def test_a_lane_that_has_ended_holds_nothing() -> None:
    pool = Credits(100, 2)
    pool.take("a", 90)
    pool.forget("a")
    pool.share(2)
    assert pool.used_bytes() == 0
    pool.take("b", 60)
    assert pool.room("b")
