"""From framed lines to the columns that are sent: parsers and processors, chained per source.

Works on batches of columns, never on one object per line unless a processor asks for it. It must not do I/O.
"""
