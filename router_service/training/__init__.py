"""Makes the weights of the message reader from labelled messages; no part of the running service."""
