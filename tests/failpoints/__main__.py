"""`python -m tests.failpoints` runs every point (half an hour), `… POINT …` those named, as a failure prints them."""

from __future__ import annotations

import sys

from tests.failpoints.runs import main

if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
