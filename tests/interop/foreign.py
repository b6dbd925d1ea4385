"""Fields of the models of :mod:`tests.interop.originals`, of this package."""

import torch

from scorefield.interop import edm, edm2, guided_diffusion
from tests.interop import originals

LIBRARIES = {"edm": edm, "edm2": edm2, "guided_diffusion": guided_diffusion}


def state_of(case, dtype=torch.float64):
    """The state dict of a case, but for tables that follow from its configuration."""
    return {
        name: originals.weight(case, name, shape).to(dtype)
        for name, shape in originals.shapes(case).items()
        if name != "u"
    }


def field_of(case, dtype=torch.float64):
    library = LIBRARIES[originals.family(case)]
    return library.field_of(originals.CASES[case], state_of(case, dtype))


def denoised(field, case, sigma):
    """The points of a case with noise of some levels, without it."""
    dtype = next(field.parameters()).dtype
    data, noise = originals.points(case)
    # The first level of a table is rounded.
    t = field.sde.time(sigma).clamp(min=0)
    x = field.sde.alpha(t).view(-1, 1, 1, 1) * (data + sigma.view(-1, 1, 1, 1) * noise)
    with torch.no_grad():
        return field.denoise(x.to(dtype), t.to(dtype), originals.classes(case))
