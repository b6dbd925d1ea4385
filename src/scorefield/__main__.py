"""``python -m scorefield``."""

import sys

from scorefield.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
