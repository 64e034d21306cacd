"""What a file is, whatever it is called: identity, content, where it went on, and its row in the checkpoint."""
