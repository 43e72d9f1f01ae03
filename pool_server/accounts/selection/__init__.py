"""The choice of an account for one exchange, and the order it reads."""
