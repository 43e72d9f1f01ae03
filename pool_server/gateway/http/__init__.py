"""The HTTP transport of the data plane."""
