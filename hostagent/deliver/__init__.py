"""The end of the way: encode, gather into blocks, compress once, send, take the verdict.

Owns outputs and their sender threads. It must not know where a line came from beyond the ranges its block
carries, and it never reads a log file.
"""
