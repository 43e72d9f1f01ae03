"""Every committed change of a store, kept as a log that leaves the machine: a copy and the log give any second back."""
