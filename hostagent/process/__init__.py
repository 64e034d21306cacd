"""From a file's bytes to the records that are sent: framing, multiline, parsers, processors, encoders.

One chain for each source. It works on chunks and batches of columns, never on one object per line unless a processor
asks for it, and must not do I/O. Begin with `chain`.
"""
