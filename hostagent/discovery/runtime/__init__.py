"""What the discoveries of all container runtimes share: what a container is, and how a runtime is followed.

`container` holds the values, `session` says what a runtime must offer, `follower` keeps following it, `picture` knows
what has been published. Docker and CRI build on this folder; nothing in it knows either of them.
"""
