"""Which paths a target means and what stands there, without ever leaving the target's root."""
