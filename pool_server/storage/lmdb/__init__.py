"""The embedded engine: LMDB environments, group commit, write-ahead log."""
