"""Forward processes: how data become noise, at once or in steps."""

from scorefield.sde.base import SDE, NormalPrior, Prior, UniformPrior
from scorefield.sde.discrete import (
    DDPMSteps,
    Discretization,
    EulerForward,
    Exact,
    ForwardStep,
    SMLDSteps,
)
from scorefield.sde.exploding import EDM, VE
from scorefield.sde.preserving import VP, Cosine, DiscreteVP, SubVP

__all__ = [
    "SDE",
    "Prior",
    "NormalPrior",
    "UniformPrior",
    "EDM",
    "VE",
    "VP",
    "SubVP",
    "Cosine",
    "DiscreteVP",
    "Discretization",
    "ForwardStep",
    "Exact",
    "SMLDSteps",
    "DDPMSteps",
    "EulerForward",
]
