"""Vendors that are data: API keys of `presets.toml`, one module for all of them."""
