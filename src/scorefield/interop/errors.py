"""What can be wrong with the files and configurations of others."""

from __future__ import annotations


class InteropError(ValueError):
    """A file or configuration of another code base that cannot be used."""
