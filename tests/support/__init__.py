"""What tests, bench and torture share: a writer and a backend outside the agent, and an oracle that compares the two.

Nothing here imports hostagent: what judges the agent must not lean on it.
"""
