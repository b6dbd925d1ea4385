"""The command line."""

from scorefield.cli.app import app as app
from scorefield.cli.app import main as main

__all__ = ["app", "main"]
