"""Who somebody is: people, keys, codes, sessions, passwords, throttled sign-in."""
