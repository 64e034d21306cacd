"""From a target to whole lines: watching, identity, fair reading, framing and multiline joining.

Owns every open log file and its read position. It must not parse a record's content, and it never decides that
something was delivered.
"""
