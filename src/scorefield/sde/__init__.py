"""Forward processes: how data become noise, at once or in steps."""

from scorefield.sde.base import SDE as SDE
from scorefield.sde.base import NormalPrior as NormalPrior
from scorefield.sde.base import Prior as Prior
from scorefield.sde.base import UniformPrior as UniformPrior
from scorefield.sde.discrete import DDPMSteps as DDPMSteps
from scorefield.sde.discrete import Discretization as Discretization
from scorefield.sde.discrete import EulerForward as EulerForward
from scorefield.sde.discrete import Exact as Exact
from scorefield.sde.discrete import ForwardStep as ForwardStep
from scorefield.sde.discrete import SMLDSteps as SMLDSteps
from scorefield.sde.exploding import EDM as EDM
from scorefield.sde.exploding import VE as VE
from scorefield.sde.preserving import VP as VP
from scorefield.sde.preserving import Cosine as Cosine
from scorefield.sde.preserving import DiscreteVP as DiscreteVP
from scorefield.sde.preserving import SubVP as SubVP

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
