"""What the daemon tells about itself: metrics, the local API, its own log, the service manager.

Looks at the other stages through values they publish. It must not change how a line flows, and secrets never
pass through it.
"""
