"""What every test may ask of the machine, and how a missing piece is reported.

A test says what it needs with `@pytest.mark.requires(...)`. Elsewhere a missing piece skips it with a reason; under
HOSTAGENT_CI=1 the machine was prepared by `.ci/run`, so any skip fails the run unless the test carries
`@pytest.mark.kernel_may_lack("feature")`.
"""

import importlib.util
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.backend import Backend

# Wall-clock limits per example would make a busy two-core machine fail what a quiet one passes.
settings.register_profile("hostagent", deadline=None)
settings.load_profile("hostagent")

# Agents and backends are started some hundred times. Without compiled modules that is half of the time.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode"))


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
