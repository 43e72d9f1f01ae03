"""How a server's processes follow each other: sockets handed on, and what the service manager is told."""
