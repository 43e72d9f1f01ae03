"""A friend's home and the sign-in."""
