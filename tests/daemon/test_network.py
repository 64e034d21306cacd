"""A change of the network, made in a network namespace of the test's own, ends back-offs early."""

import subprocess
import sys
import textwrap

import pytest

LISTENER = textwrap.dedent(
    """
    import subprocess, threading
    from pathlib import Path
    from hostagent.clock import Clock
    from hostagent.daemon.network import NetworkWatch
    from tests.support.waiting import wait_for

    def listens():
        "Whether any socket of this namespace is in a multicast group: a change that comes before is heard by nobody."
        sockets = [line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]]
        return any(int(fields[3], 16) for fields in sockets)

    changed = threading.Event()
    watch = NetworkWatch(changed.set, Clock())
    assert not listens()
    watch.start()
    wait_for(listens, "the watch to listen")
    quiet = not changed.wait(0.8)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    heard = changed.wait(20)
    watch.stop()
    print(quiet, heard)
    """
)


@pytest.mark.requires(root=True, tools=["unshare", "ip"])
def test_a_link_that_comes_up_is_heard_and_silence_is_not() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", LISTENER], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
