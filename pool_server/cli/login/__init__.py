"""`pool-server account login`: a vendor's own program signs in, on the server's host."""
