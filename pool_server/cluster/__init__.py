"""The ports of the rooms over one PostgreSQL database, for a pool of several machines."""
