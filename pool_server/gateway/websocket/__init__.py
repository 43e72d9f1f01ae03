"""The WebSocket transport of the data plane."""
