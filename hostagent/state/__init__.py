"""What survives a crash: positions, in-flight blocks, losses.

Owns the SQLite database and is its only writer. A position stored here was acknowledged by the output or is safe
in the spool; nothing read but undelivered may be recorded as done.
"""
