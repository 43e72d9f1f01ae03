"""One module a program or pool: what it leaves on disk, read without changing anything there."""
