"""What each command takes, and what it starts. Nothing heavy is imported before a command runs."""
