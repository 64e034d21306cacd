"""Docker Engine as a container runtime: its API over the unix socket, and the session that makes containers of it.

It is imported when a source wants Docker and its socket is there. Which containers matter is not known here.
"""
