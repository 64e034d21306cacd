"""Every fault there is, by kind."""

import os
import shutil

from tests.torture.faults import backend, calls, clock, damage, disk, files, points, process
from tests.torture.faults.fault import Fault, Hold

__all__ = ["FAULTS", "Fault", "Hold", "left_out"]

FAULTS: list[Fault] = [
    fault for kind in (process, points, backend, files, calls, disk, damage, clock) for fault in kind.FAULTS
]


def left_out(*, disks: bool = True) -> dict[str, str]:
    """The faults this machine can't have, each with what is lacking."""
    if not disks:
        no_disks = "leave to use them (--no-disks)"
    elif os.geteuid() != 0:
        no_disks = "root"
    else:
        no_disks = "" if shutil.which("mkfs.ext4") else "the program mkfs.ext4"
    lacking = {check: check() for check in {fault.lacks for fault in FAULTS}}
    reasons = {fault.name: no_disks if fault.disks and no_disks else lacking[fault.lacks] for fault in FAULTS}
    return {name: reason for name, reason in reasons.items() if reason}
