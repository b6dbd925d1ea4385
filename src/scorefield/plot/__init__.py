"""Pictures of fields, samples, diagnostics and trainings, in one call each.

Every function returns a matplotlib figure, which a notebook shows. A *model* is a field, or a path
or name as :func:`scorefield.load` takes it; where several are compared, a mapping from labels to
models, or a list of paths.

Example:
    >>> import scorefield as sf
    >>> truth = sf.GaussianMixture.ring(sde=sf.EDM())
    >>> figure = sf.plot.field(truth, sigma=[0.5, 2.0])
"""

from scorefield.plot.drawn import samples, trajectories
from scorefield.plot.lines import profile, training
from scorefield.plot.maps import compare, curl, field
from scorefield.plot.ranks import ranks

__all__ = ["field", "curl", "compare", "profile", "training", "samples", "trajectories", "ranks"]
