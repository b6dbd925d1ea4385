"""Configurations: sections, presets, overrides, and the objects they describe.

The names below are imported when they are first used: listing the presets needs none of the
libraries that train.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
