"""Faults that come together: those that exclude each other don't, and a fault that begins while another lasts is still
what it says. What such a set costs is found in the row of each of its faults.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import run_program
from tests.torture.faults import FAULTS, Fault, Hold
from tests.torture.judge import Tally
from tests.torture.table import by_fault, slowest, total, verdict
from tests.torture.tampering import Failing, tracer_of
from tests.torture.together import company_of
from tests.torture.world import World

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.mark.parametrize("first", FAULTS, ids=lambda fault: fault.name)
def test_no_two_that_exclude_each_other_are_drawn(first: Fault) -> None:
    rng = random.Random(3)
    for _ in range(50):
        drawn = company_of(first, FAULTS, 4, rng)
        assert drawn[0] == first
        assert len(drawn) <= 4
        taken = Hold(0)
        for fault in drawn:
            assert not taken & fault.takes
            taken |= fault.takes


def test_every_fault_that_leaves_others_something_gets_company() -> None:
    rng = random.Random(3)
    drawn = [company_of(first, FAULTS, 3, rng) for first in FAULTS for _ in range(10)]
    assert {first.name for first, *others in drawn if not others} == {
        "inode reused, agent running",
        "inode reused, agent away",
    }
    assert {fault.kind for _, *others in drawn for fault in others} == {fault.kind for fault in FAULTS}


def test_logs_are_deleted_only_while_somebody_is_there_to_read_them() -> None:
    deleting = [BY_NAME["delete 5/s"], BY_NAME["backend down, files deleted"]]
    kill, clock = BY_NAME["kill -9"], BY_NAME["clock stepped forwards"]
    assert all(fault.takes & other.takes for fault in deleting for other in (kill, clock))


def test_the_cost_of_a_set_is_in_the_row_of_each_of_its_faults_and_once_in_the_sum() -> None:
    kill, storm, cut = BY_NAME["kill -9"], BY_NAME["copytruncate 20/s"], BY_NAME["spool truncated"]
    charged = {
        (kill, storm): Tally("a", injected=1, twice=3, recovered_s=[1.0]),
        (cut, storm): Tally("b", injected=1, lost=2, recovered_s=[4.0]),
        (): Tally("the end"),
    }
    rows = {row.fault: (row.injected, row.twice, row.lost) for row in by_fault(FAULTS, charged)}
    assert rows == {"kill -9": (1, 3, 0), "copytruncate 20/s": (2, 3, 2), "spool truncated": (1, 0, 2)}
    whole = total("in all", charged.values())
    assert (whole.injected, whole.twice, whole.lost) == (2, 3, 2)
    assert slowest(charged.values()) == "4.0 s after b"


def test_a_set_may_cost_what_one_of_its_faults_may() -> None:
    storm, cut, power = BY_NAME["copytruncate 20/s"], BY_NAME["spool truncated"], BY_NAME["power loss"]
    lost, twice = Tally("lost", lost=1, gaps=["where"]), Tally("twice", twice=1, disordered=1)
    assert len(verdict([storm], lost)) == 2
    assert verdict([storm, cut], lost) == []
    assert len(verdict([storm], twice)) == 2
    assert verdict([storm, power], twice) == []
    eio, kill, disordered = BY_NAME["EIO writing the spool"], BY_NAME["kill -9"], Tally("disordered", disordered=1)
    assert len(verdict([eio], disordered)) == 1
    assert verdict([eio, kill], disordered) == []
    delete, unseen = BY_NAME["delete 5/s"], Tally("unseen", lost=3, unseen=3, gaps=["where"])
    assert len(verdict([delete], unseen)) == 2
    assert verdict([delete, eio], unseen) == []
    assert verdict([storm, cut, power], Tally("unaccounted", unaccounted=1)) != []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 1, 1e5, 2, disks=False)
    try:
        world.start()
        yield world
    finally:
        world.close()


@pytest.mark.requires(tools=("strace",))
def test_in_company_a_started_agent_finds_the_faults_of_the_one_before(world: World) -> None:
    def environment() -> bytes:
        return Path(f"/proc/{world.agent.pid}/environ").read_bytes()

    with world.company():
        world.run_under("env", "MARK=here")
        world.tamper(Failing(world.directory / "strace.log", "pwritev2", [], how="EIO"))
        world.kill()
        world.launch()
        assert tracer_of(world.agent.pid)
        assert b"MARK=here" in environment()
        world.stop_tampering()
        world.kill()
        world.run_under()  # who took the agent away brings it back
        pid = world.agent.pid
    assert world.agent.pid != pid
    assert b"MARK=here" not in environment()


# As in test_torture.py: a copy of the mounts would keep a disk in use after its fault has unmounted it.
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_a_few_faults_at_once_cost_no_line() -> None:
    """Three at a time for some seconds; long runs with many seeds are for `python -m`."""
    run_program("tests.torture", "--seed", "4", "--at-once", "3", "--duration", "12", "--rate", "300000")
