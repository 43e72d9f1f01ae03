"""The server as a service of the system: installed, looked at, upgraded."""
