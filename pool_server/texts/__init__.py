"""What figures, times and the closed vocabularies are called for people."""
