"""The persona router: reads a message, chooses the persona, lets it answer."""
