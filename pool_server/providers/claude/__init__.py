"""Anthropic: credentials, requests, quota, faults."""
