"""`python -m backends.agent`: the agent from this tree, as the one file would run it."""

from __future__ import annotations

import sys

from .starting import main

if __name__ == "__main__":
    sys.exit(main())
