"""How much somebody may use: counters, reservations, fair share, calendar periods."""

USE = "users.use"  # owner (user id; user id, NUL, jti) → Use (counters and what is held)
HELD = "users.held"  # worker, NUL, owner → b"": the worker holds something for the owner
SHARE = "users.share"  # provider, NUL, user id → recent use

TABLES = (USE, HELD, SHARE)
