"""The audit: where every byte that is known to exist is, beside a running agent or without one.

Begin with `audit.py`; what is compared with what stands in docs/reliability.md.
"""
