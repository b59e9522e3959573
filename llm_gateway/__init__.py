"""The LLM gateway: the only service that knows models."""
