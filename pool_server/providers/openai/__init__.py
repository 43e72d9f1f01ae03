"""OpenAI-compatible endpoints with an API key."""
