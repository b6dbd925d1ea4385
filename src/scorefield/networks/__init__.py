"""Backbones: networks that a field wraps, called as ``backbone(x, label)``."""
