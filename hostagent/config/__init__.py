"""From YAML on disk to frozen, checked values: before any line flows.

Owns the configuration model, reading it with every error at once (file, line, column, what was expected), and the
difference between two configurations for a reload. It must not open logs, sockets or the state database.
"""
