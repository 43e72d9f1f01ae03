"""Accounts' credentials in PostgreSQL: sealed rows, the source that rooms see, a folder whose files are taken in."""
