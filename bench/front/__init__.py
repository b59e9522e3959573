"""What the front door costs: a cached chat, conversations on PostgreSQL, streams."""
