"""What the pool knows of each account: state, cooldowns, quota windows, and what changes them."""
