"""Framings: what a record is in a file, and what a container runtime wrote around its text.

First of the stages of a chain. A framing looks at the chunk as a whole and takes a road without an object per line
where every line has the same shape; lines that don't have the expected shape are carried as they are.
"""
