"""Files that only grow at the end, in checksummed frames: what the spool and the dead letters lie in."""
