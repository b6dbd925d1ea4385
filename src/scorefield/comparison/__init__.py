"""Runs against each other: over seeds, at equal network calls and at equal training time."""
