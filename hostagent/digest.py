"""BLAKE2b, by which files, blocks and configurations are recognised, without what `hashlib` loads beside it.

`hashlib` imports OpenSSL for the digests that nobody here uses: 4 MB of memory in every agent, for a function
that is Python's own.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # a Python that keeps it elsewhere
    from hashlib import blake2b

__all__ = ["blake2b"]
