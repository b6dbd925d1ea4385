"""The command line."""

from scorefield.cli.program import main as main

__all__ = ["main"]
