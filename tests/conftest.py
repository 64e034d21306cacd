"""What every test may ask of the machine, and how a missing piece is reported.

A test says what it needs with `@pytest.mark.requires(...)`. Elsewhere a missing piece skips it with a reason; under
HOSTAGENT_CI=1 the machine was prepared by `.ci/run`, so any skip fails the run unless the test carries
`@pytest.mark.kernel_may_lack("feature")`. A run of several processes is shared out here, too.
"""

import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.backend import Backend

RUNTIMES = "tests/runtimes/"

# Wall-clock limits would make a busy two-core machine fail what a quiet one passes. The examples are the same in every
# run: what a change has not broken must not fail it. With HOSTAGENT_NEW_EXAMPLES they are drawn anew, to find more.
settings.register_profile(
    "hostagent",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="HOSTAGENT_NEW_EXAMPLES" not in os.environ,
)
settings.load_profile("hostagent")

# Agents and backends are started some hundred times. Without compiled modules that is half of the time.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode"))

# A unix socket's path has 107 bytes at most, and hundreds of tests have one in their temporary folder.
if len(tempfile.gettempdir()) > 20:
    tempfile.tempdir = os.environ["TMPDIR"] = "/tmp"


def missing_requirements(*, root: bool = False, tools: Iterable[str] = (), modules: Iterable[str] = ()) -> list[str]:
    """Each requirement this machine does not meet, in words a person can act on."""
    missing = []
    if root and os.geteuid() != 0:
        missing.append("needs root")
    missing += [f"needs the program {tool!r} on PATH" for tool in tools if shutil.which(tool) is None]
    missing += [f"needs the Python module {module!r}" for module in modules if importlib.util.find_spec(module) is None]
    return missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        if missing := missing_requirements(*mark.args, **mark.kwargs):
            pytest.skip("; ".join(missing))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # noqa: ANN401 - pytest-xdist has no types
    """To each process the next test, but all those with container runtimes to one: they share an engine a session."""
    # The groups that pytest-xdist has itself (--dist loadgroup) rename node ids, which has no effect since pytest 9.2.
    from xdist.scheduler import LoadScopeScheduling

    class OneByOne(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return RUNTIMES if nodeid.startswith(RUNTIMES) else nodeid

    return OneByOne(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes begin with the longest tests, so that none of them has one to itself at the end."""
    if shared_out(config):
        items.sort(key=lambda item: (item.get_closest_marker("alone") is not None, -may_take_s(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What is marked `alone` waits for the tests beside it to end, and they for it, before any time limit begins."""
    if not shared_out(item.config):
        return (yield)
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


def shared_out(config: pytest.Config) -> bool:
    """Whether this is one of several processes that share the tests."""
    return hasattr(config, "workerinput")


def may_take_s(item: pytest.Item) -> float:
    """The time a test asks for, 0 for the many that ask for none."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("HOSTAGENT_CI") == "1"
        and item.get_closest_marker("kernel_may_lack") is None
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be missing (HOSTAGENT_CI=1): {reason}"
    return report


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """A backend in a process of its own, healthy until it is told otherwise."""
    with Backend(tmp_path / "backend") as running:
        yield running


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """An empty directory for the logs of a test."""
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"
