"""A long bad day for the agent, with a seed: `python -m tests.torture --help`."""
