"""What an answer of a provider is evidence of: the table of kinds, the vendors' rules, and the one classifier."""
