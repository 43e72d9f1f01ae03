"""How much somebody may use: counters, reservations, fair share, calendar periods."""
