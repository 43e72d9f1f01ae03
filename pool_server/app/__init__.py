"""The process: settings read, services built and wired, signals, workers, listening sockets."""
