"""What several attempts of one exchange prove together, and when another is begun."""
