"""The ledger over one database: records of every node, kept once, and what is asked of them."""
