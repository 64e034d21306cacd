"""Killed at any moment, nothing that was promised is missing afterwards, and nothing is altered."""

import os
import random
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostagent.state.checkpoint import Checkpoint
from hostagent.state.spool.spool import Spool
from tests.state.values import HandClock, offsets, spool_config

ROUNDS = 12


def run_and_kill(data_dir: Path, first: int, seed: int, after_lines: int) -> list[str]:
    """What the program said until it was killed, `after_lines` lines after its start."""
    text = b""
    deadline = time.monotonic() + 60
    command = [sys.executable, "-m", "tests.state.crasher", str(data_dir), str(first), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        out = process.stdout.fileno()
        while time.monotonic() < deadline:
            _, started, since = text.partition(b"started\n")
            if started and since.count(b"\n") >= after_lines:
                break
            if select.select([out], [], [], 1.0)[0]:
                piece = os.read(out, 65536)
                if not piece:
                    break
                text += piece
        process.kill()
        while piece := os.read(out, 65536):
            text += piece
    assert process.returncode == -9, text.decode()
    assert b"started\n" in text, text.decode()
    return text.decode().splitlines()


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    spooled: dict[str, None] = {}
    delivered: list[str] = []
    position = 0
    for round_number in range(ROUNDS):
        lines = run_and_kill(tmp_path, position // 10, seed * 1000 + round_number, rng.randint(0, 60))
        for line in lines:
            word, _, rest = line.partition(" ")
            assert word != "altered", line
            assert word != "lost", line
            assert word != "notice" or "were being written" in line, line
            if word == "spooled":
                spooled[rest] = None
            elif word == "delivered":
                delivered.append(rest)
        checkpoint = Checkpoint.open(tmp_path, HandClock())
        spool = Spool.open(tmp_path, "main", spool_config(), HandClock(), checkpoint)
        position = offsets(checkpoint).get((1, "main"), 0)
        promised = max([0, *(int(line.split()[1]) for line in lines if line.startswith("committed"))])
        assert position >= promised
        waiting = [header.id for header in spool.contents()]
        assert waiting == sorted(waiting, key=lambda name: int(name[1:]))
        # Below the position everything was delivered or waits here; behind it, it is still in its file.
        missing = {f"b{number}" for number in range(position // 10)} - set(delivered) - set(waiting)
        assert missing == set()
        assert set(spooled) <= set(delivered) | set(waiting)
        assert checkpoint.loss_totals() == []
        # What is in flight is not in the spool, so nothing is sent from both.
        assert {one.id for one in checkpoint.inflight("main")} & set(waiting) == set()
        checkpoint.drop_inflight("main")
        spool.close()
        checkpoint.close()
    firsts = list(dict.fromkeys(delivered))
    assert firsts == sorted(firsts, key=lambda name: int(re.sub(r"\D", "", name)))
    again = len(delivered) - len(firsts)
    assert again <= ROUNDS, "at most the one block that was being delivered comes again per kill"
