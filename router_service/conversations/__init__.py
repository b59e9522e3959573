"""Conversations that last: what was said in a session, and what of it a prompt knows."""
