"""Health fails when something has failed, says why, and comes back by itself."""

from hostagent.observe.health import Health, render_health, render_readiness


def test_a_probe_is_asked_each_time_and_all_failures_are_told() -> None:
    reasons = {"checkpoint": "disk full", "send:main": ""}
    health = Health()
    health.probe("checkpoint", lambda: reasons["checkpoint"])
    health.probe("send:main", lambda: reasons["send:main"])
    health.set_ready()
    assert render_health(health.report()) == (503, "checkpoint: disk full\n")
    reasons.update({"checkpoint": "", "send:main": "the thread has ended"})
    assert render_health(health.report()) == (503, "send:main: the thread has ended\n")
    reasons["send:main"] = ""
    assert render_health(health.report()) == (200, "ok\n")


def test_ready_is_started_not_stopping_and_healthy() -> None:
    health = Health()
    assert render_readiness(health.report())[0] == 503
    assert render_health(health.report())[0] == 200
    health.set_ready()
    assert render_readiness(health.report()) == (200, "ok\n")
    health.set_ready("stopping")
    assert render_readiness(health.report()) == (503, "ready: stopping\n")
    health.set_ready()
    health.probe("checkpoint", lambda: "read-only")
    assert render_readiness(health.report()) == (503, "checkpoint: read-only\n")


def test_only_what_a_restart_would_mend_starves_the_watchdog() -> None:
    reasons = {"checkpoint": "disk full", "reader": ""}
    health = Health()
    health.probe("checkpoint", lambda: reasons["checkpoint"], restart_helps=False)
    health.probe("reader", lambda: reasons["reader"])
    assert not health.report().healthy
    assert not health.stuck()
    reasons["reader"] = "no progress"
    assert health.stuck()
