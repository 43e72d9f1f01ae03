"""`python -m pool_server`."""

from pool_server.cli import main

if __name__ == "__main__":
    main()
