"""A week of demand replayed through the real selection on simulated accounts."""
