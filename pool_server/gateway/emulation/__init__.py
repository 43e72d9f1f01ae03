"""What the pool answers itself around the model calls, in the form each client expects."""
