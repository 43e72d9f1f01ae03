"""One PostgreSQL database as the store of several nodes. The driver is an extra, imported late."""
