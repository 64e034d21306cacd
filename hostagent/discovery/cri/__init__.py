"""containerd and CRI-O as container runtimes, by Kubernetes' CRI: API, event streams, and the session made of both.

It is imported only when somebody listens at a CRI socket, as it loads grpcio. Which containers matter is not
known here.
"""
