"""What people do with accounts: add, change, test, remove."""
