"""Signing accounts in: the API and page of a sign-in, and the line that runs a vendor's own program."""
