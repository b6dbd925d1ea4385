"""The command line."""

from scorefield.cli.app import main as main

__all__ = ["main"]
