"""The operator's pages and their JSON API."""
