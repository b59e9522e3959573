"""What a running ION does, as its metrics tell it."""
