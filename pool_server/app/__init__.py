"""The process: settings read, rooms built and wired, signals, workers, listening sockets."""
