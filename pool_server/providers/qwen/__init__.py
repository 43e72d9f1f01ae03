"""Qwen: credentials, requests, faults."""
