"""What the rooms are built over: this machine's own stores, or a database that several machines share."""
