"""Random lives of log files against a real agent."""
