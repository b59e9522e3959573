"""ION over gRPC."""
