"""Blocks on disk while a backend is down or slow, and how they are looked at from outside."""
