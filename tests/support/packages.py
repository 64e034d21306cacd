"""Lays down what pip would beside an installed plugin package, so that tests can bring plugins of their own."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest


def install_metadata(site: Path, name: str, entries: Mapping[str, str], version: str = "1") -> None:
    """Make `site` a place with an installed package `name`; `entries` are its entry points for the agent."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{entry} = {module}\n" for entry, module in entries.items())
    (info / "entry_points.txt").write_text(f"[hostagent]\n{lines}")


def install_module(site: Path, name: str, code: str, version: str = "1") -> None:
    """Install a plugin that is one module."""
    install_metadata(site, name, {name: name}, version)
    (site / f"{name}.py").write_text(code)


def seen_by_agents(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every agent the test starts find what is installed in `site`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")])))
