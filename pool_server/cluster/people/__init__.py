"""People, the door and the secret of a pool of several machines."""
