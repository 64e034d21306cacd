"""Health that can fail: named checks, each asked anew whenever somebody wants to know.

The daemon registers a probe for everything that can break; the API and the service manager's watchdog ask. Nothing is
repaired here, and asking never blocks on the part asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hostagent.observe.report import CheckReport, HealthReport

# The reader goes round at least every few seconds; 25 leaves room for a slow disk and is noticed within 30.
READER_LIMIT_S = 25.0
STOPPING = "stopping"


class _Check(NamedTuple):
    probe: Callable[[], str]
    hint: str
    restart_helps: bool


class Health:
    """All checks of the agent, and whether it has started up."""

    def __init__(self) -> None:
        self._checks: dict[str, _Check] = {}
        self._not_ready = "starting: not every source is being watched yet"

    def probe(self, name: str, probe: Callable[[], str], hint: str = "", *, restart_helps: bool = True) -> None:
        """A check that returns what is wrong, or nothing. A name that exists is replaced."""
        self._checks[name] = _Check(probe, hint, restart_helps)

    def set_ready(self, reason_not: str = "") -> None:
        """Ready from now on, or not ready for a reason (starting, stopping)."""
        self._not_ready = reason_not

    @property
    def stopping(self) -> bool:
        """Whether the agent has begun to stop."""
        return self._not_ready == STOPPING

    def stuck(self) -> bool:
        """Whether a check fails that a restart would mend: a full disk is no reason to starve the watchdog."""
        return any(check.restart_helps and check.probe() for check in list(self._checks.values()))

    def report(self) -> HealthReport:
        """Ask every check."""
        checks = []
        for name, check in list(self._checks.items()):
            reason = check.probe()
            checks.append(CheckReport(name=name, ok=not reason, reason=reason, hint=check.hint if reason else ""))
        ready = CheckReport(name="ready", ok=not self._not_ready, reason=self._not_ready)
        healthy = all(check.ok for check in checks)
        return HealthReport(healthy=healthy, ready=not self._not_ready, checks=(*checks, ready))


def render_health(report: HealthReport) -> tuple[int, str]:
    """The answer of `/healthz`: 200 or 503, and one line per check that fails."""
    failing = [check for check in report.checks if not check.ok and check.name != "ready"]
    return _answer(failing)


def render_readiness(report: HealthReport) -> tuple[int, str]:
    """The answer of `/readyz`: ready means started, not stopping, and healthy."""
    return _answer([check for check in report.checks if not check.ok])


def _answer(failing: list[CheckReport]) -> tuple[int, str]:
    if not failing:
        return 200, "ok\n"
    lines = [f"{check.name}: {check.reason}" + (f" ({check.hint})" if check.hint else "") for check in failing]
    return 503, "\n".join(lines) + "\n"
