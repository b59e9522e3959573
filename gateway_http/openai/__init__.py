"""The API of OpenAI's clients: chat completions and models, in front of the same personas."""
