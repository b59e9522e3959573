"""The `ion` command: the three services in one process, and clients for people."""

import os

# gRPC reads it as it is imported. Connections that fail are told as the command's failure, in its own words.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
