"""The service manager hears what happens, over file and abstract sockets; without one nothing happens."""

import os
import socket
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.observe.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_arrive(tmp_path: Path, *, abstract: bool) -> None:
    shown = f"@hostagent-test-{os.getpid()}" if abstract else str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + shown[1:] if abstract else shown)
        manager.settimeout(10)
        notifier = Notifier(Clock(), {"NOTIFY_SOCKET": shown})
        notifier.ready("12 files\nWATCHDOG=1")
        notifier.alive()
        notifier.stopping()
        notifier.extend_timeout(20)
        notifier.reloading()
        received = [manager.recv(1000).decode() for _ in range(5)]
    assert received[:4] == [
        "READY=1\nSTATUS=12 files WATCHDOG=1", "WATCHDOG=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=20000000"
    ]  # fmt: skip
    assert received[4].startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_a_manager_that_is_absent_or_full_is_no_error(tmp_path: Path) -> None:
    Notifier(Clock(), {}).ready()
    Notifier(Clock(), {"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        for _ in range(2000):
            Notifier(Clock(), {"NOTIFY_SOCKET": path}).alive("x" * 1000)


def test_the_watchdog_is_fed_twice_as_often_as_asked() -> None:
    def interval(**environment: str) -> float | None:
        return Notifier(Clock(), environment).watchdog_interval_s

    assert interval(WATCHDOG_USEC="30000000") == 15.0
    assert interval(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid())) == 15.0
    assert interval(WATCHDOG_USEC="30000000", WATCHDOG_PID="1") is None
    assert interval(WATCHDOG_USEC="never") is None
    assert interval() is None
