"""From a target to the bytes that come next: watching, identity, rotation, fair reading.

Owns every open log file and how far it was read. What the bytes mean is left to the chain it is handed, and it never
decides that something was delivered. Begin with `reader`.
"""
