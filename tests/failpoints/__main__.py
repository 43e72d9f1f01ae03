"""`python -m tests.failpoints` runs every point (half an hour), `… POINT …` those named, as a failure prints them."""

from __future__ import annotations

import argparse
import sys

from tests.failpoints.points import Point
from tests.failpoints.runs import main

if __name__ == "__main__":
    words = argparse.ArgumentParser(
        "python -m tests.failpoints", description="Runs failpoints, all unless some are named."
    )
    words.add_argument("points", nargs="*", type=Point.parse, metavar="POINT", help="as a failure prints it")
    sys.exit(min(1, main(words.parse_args().points)))
