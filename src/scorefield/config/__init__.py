"""Configurations: sections, presets, overrides, and the objects they describe."""
