"""Credential files of the pool folder: reading, loading, refreshing and writing them back."""
