"""Formats below the dialects: server-sent events, content codings, splicing of JSON bytes."""
