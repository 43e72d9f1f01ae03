"""Google: credentials, onboarding, requests, faults."""
