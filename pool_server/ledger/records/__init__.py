"""Usage records: how they are keyed, encoded and made fit to keep."""
