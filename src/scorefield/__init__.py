r"""Score models as vector fields.

A score model is a vector field :math:`s(x, t) \approx \nabla_x \log p_t(x)`. This package trains
such fields, samples with them, and measures, with error bars, how far they are from what they
claim to be: a gradient, the score of the data.

The public names are listed in ``__init__.pyi`` and imported when they are first used, so that
``import scorefield`` does not import torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]
