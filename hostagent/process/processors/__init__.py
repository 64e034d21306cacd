"""Processors: what happens to records between parsing and encoding.

Last stage of a chain. Each takes a batch and gives back batches; each says the same about the same record, whatever
other records it comes with.
"""
