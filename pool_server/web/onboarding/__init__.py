"""Setting up a client: snippets, scripts, and the route that hands them out."""
