"""The ledger over the embedded store of one machine."""
