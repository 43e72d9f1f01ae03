"""Chat Completions to the neutral form and back."""
