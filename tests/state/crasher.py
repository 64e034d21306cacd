"""A program to be killed at any moment: spools, delivers and commits in a loop, telling what it was promised.

Each line on stdout is written before the next step: `spooled ID` after sync() returned, `delivered ID` before
advance(), `committed OFFSET` after commit() returned. Run it as
`python -m tests.state.crasher DATA_DIR FIRST_NUMBER SEED`.
"""

import os
import random
import sys
from pathlib import Path

from hostagent.clock import Clock
from hostagent.state.checkpoint import Checkpoint, SpoolChange
from hostagent.state.spool.spool import Spool
from tests.state.values import block, delivery, file_row, part, spool_config


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def body_of(number: int) -> bytes:
    return random.Random(number).randbytes(1 + number * 37 % 60_000)


def main(data_dir: Path, first: int, seed: int) -> None:
    rng = random.Random(seed)
    checkpoint = Checkpoint.open(data_dir, Clock())
    if not checkpoint.files():
        checkpoint.add_files([file_row()])
    spool = Spool.open(data_dir, "main", spool_config(max_bytes=8 * 1024 * 1024), Clock(), checkpoint)
    for loss in checkpoint.losses():
        tell(f"lost {loss.reason} {loss.start} {loss.end}")
    for notice in [*checkpoint.notices(), *spool.notices()]:
        tell(f"notice {notice.message}")
    tell("started")
    number = first
    while True:
        group = []
        for _ in range(rng.randint(1, 4)):
            one = block(f"b{number}", part(1, number * 10, number * 10 + 10))
            checkpoint.commit([one], [])
            place = spool.append(one, delivery(one.id, body_of(number)))
            if place is None:
                break
            group.append((place, one))
            number += 1
        spool.sync()
        for _, one in group:
            tell(f"spooled {one.id}")
        head = spool.place
        change = SpoolChange("main", group, head, spool.end) if head is not None else None
        checkpoint.commit([], [one for _, one in group], change)
        tell(f"committed {number * 10}")
        for _ in range(rng.randint(0, 5) if group else 200):
            oldest = spool.head()
            if oldest is None:
                break
            if oldest.delivery.body != body_of(int(oldest.id[1:])):
                tell(f"altered {oldest.id}")
            tell(f"delivered {oldest.id}")
            spool.advance()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
