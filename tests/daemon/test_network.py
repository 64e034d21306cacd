"""A change of the network, made in a network namespace of the test's own, ends back-offs early."""

import subprocess
import sys
import textwrap

import pytest

LISTENER = textwrap.dedent(
    """
    import subprocess, threading
    from hostagent.clock import Clock
    from hostagent.daemon.network import NetworkWatch

    changed = threading.Event()
    watch = NetworkWatch(changed.set, Clock())
    watch.start()
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
        ["unshare", "--net", sys.executable, "-c", LISTENER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "True"]
