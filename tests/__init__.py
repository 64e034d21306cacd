"""Tests by behaviour: real files, real SQLite, real servers. Nothing here patches the agent's own code."""
