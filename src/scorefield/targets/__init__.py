"""Targets: distributions with exact fields at every noise level."""
