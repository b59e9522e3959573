"""Measures how the LLM gateway tames slow model calls, and what it stands. See README.md."""
