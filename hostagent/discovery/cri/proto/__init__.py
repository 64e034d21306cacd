"""The messages of CRI v1 and of containerd's events that the agent speaks, generated from the `.proto` files beside it.

Run `python -m hostagent.discovery.cri.proto.regenerate` after a change there. Importing the generated modules loads
protobuf (several MB), so only the CRI discovery does it, and only while a CRI socket is configured.
"""
