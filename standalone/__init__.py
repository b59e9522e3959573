"""The `ion` command: the three services in one process, and clients for people."""
