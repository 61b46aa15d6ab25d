"""The loop, its configuration and its checkpoints. It does not know which method it runs."""
