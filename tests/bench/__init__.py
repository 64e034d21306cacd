"""Measures the agent as its users run it: a process, a file, a backend. `python -m tests.bench --help`."""
