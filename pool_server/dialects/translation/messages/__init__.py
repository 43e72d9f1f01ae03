"""Anthropic Messages to the neutral form and back."""
