"""hostagent: one daemon per machine that finds its logs and gets every line to a backend."""

__version__ = "0.1.0"
