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
from hostagent.config.nodes import MapNode, Node, Problems, ScalarNode, read_nodes
from hostagent.config.options import read_struct


def read_api(path: str | Path, environment: Mapping[str, str] = os.environ) -> ApiConfig:
    """The `api` section; the default where none can be read."""
    for node in _found("api", path, environment):
        section = read_struct(ApiConfig, node, Problems())
        if isinstance(section, ApiConfig):
            return section
    return ApiConfig()


def read_data_dir(path: str | Path, environment: Mapping[str, str] = os.environ) -> Path:
    """`data_dir`; the default where none can be read."""
    for node in _found("data_dir", path, environment):
        if isinstance(node, ScalarNode):
            return Path(node.text)
    return DEFAULT_DATA_DIR


def _found(section: str, path: str | Path, environment: Mapping[str, str]) -> Iterator[Node]:
    for file in config_files(path):
        root = read_nodes(file, environment, Problems())
        if isinstance(root, MapNode) and section in root.items:
            yield root.items[section][1]
