"""Answers in neutral form: blocks in order, whole answers, and the way back to the client."""
