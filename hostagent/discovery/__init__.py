"""The start of the way: what is there to read.

Each discovery publishes targets as they appear, change and go. It must not open or read the logs it finds: that
is `tail`, and the daemon joins the two.
"""
