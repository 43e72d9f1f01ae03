"""OpenAI Codex: credentials, requests, quota, faults."""
