"""The command line."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status; an interrupt ends the imports quietly."""
    try:
        from scorefield.cli.program import main as command

        return command(arguments)
    except KeyboardInterrupt:
        print("interrupted before anything was done", file=sys.stderr)
        return 130
