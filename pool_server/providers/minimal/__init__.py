"""The smallest real request of an account's own kind, and what its answer says. Pure."""
