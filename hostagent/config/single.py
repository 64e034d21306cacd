"""Single settings of a configuration that may be broken elsewhere: where the agent listens, and where its state lies.

For commands that look at an agent or its state, and are needed most while the configuration is wrong. Everything else
goes through `load`, which believes a file only as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hostagent.config.load import DEFAULT_DATA_DIR, config_files
from hostagent.config.model import ApiConfig
from hostagent.config.nodes import MapNode, Node, Problems, ScalarNode, read_as_far_as_possible
from hostagent.config.options import read_struct
from hostagent.errors import HostagentError


def read_api(path: str | Path, environment: Mapping[str, str] = os.environ) -> ApiConfig:
    """The `api` section, the default where there is none; HostagentError if nobody can know."""
    for node in _found("api", path, environment):
        section = read_struct(ApiConfig, node, Problems())
        if isinstance(section, ApiConfig):
            return section
    return ApiConfig()


def read_data_dir(path: str | Path, environment: Mapping[str, str] = os.environ) -> Path:
    """`data_dir`, the default where there is none; HostagentError if nobody can know."""
    for node in _found("data_dir", path, environment):
        if isinstance(node, ScalarNode):
            return Path(node.text)
    return DEFAULT_DATA_DIR


def _found(section: str, path: str | Path, environment: Mapping[str, str]) -> Iterator[Node]:
    problems = Problems()
    unread = False
    for file in config_files(path):
        root, whole = read_as_far_as_possible(file, environment, problems)
        unread |= not whole and os.path.lexists(file)
        if isinstance(root, MapNode) and section in root.items:
            yield root.items[section][1]
    if unread:
        # The default could be another agent's.
        first = str(problems.found[0]).partition("\n")[0]
        raise HostagentError(f"{first}; so `{section}` is not known: correct the file, or give --data-dir or --api")
