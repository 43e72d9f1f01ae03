"""`python -m pool_server`, and what `pool-server` runs."""

import sys


def main() -> None:
    """A plain `statusline` is answered before the commands are loaded: it is drawn many times a minute."""
    if sys.argv[1:2] == ["statusline"]:
        from pool_server import statusline

        provider = statusline.asked(sys.argv[2:])
        if provider is not None:
            statusline.tell(statusline.show(provider))
    from pool_server.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
