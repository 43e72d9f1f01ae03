"""Sums over usage records by time and name: written with each record, read for every question."""
