"""The log of single exchanges, and one exchange explained."""
