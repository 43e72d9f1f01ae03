"""A recorded past replayed through the real choice, as it was and as it might have been."""
