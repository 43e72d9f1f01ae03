"""Kimi Code: the preset, and the sign-in of the vendor's own program."""
