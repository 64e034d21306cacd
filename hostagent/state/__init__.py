"""What survives a crash: positions, in-flight blocks, the spool, dead letters, losses.

Owns everything in the data directory and is its only writer. A position stored here was acknowledged by the output or
is safe in the spool; nothing read but undelivered may be recorded as done. What is damaged is set aside and said.
"""
