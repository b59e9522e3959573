"""The HTTP gateway: thin; translates HTTP and JSON to gRPC."""
