"""Forward processes: how data become noise."""

from scorefield.sde.base import SDE as SDE
from scorefield.sde.base import Prior as Prior
from scorefield.sde.cosine import Cosine as Cosine
from scorefield.sde.exploding import EDM as EDM
from scorefield.sde.exploding import VE as VE
from scorefield.sde.preserving import VP as VP
from scorefield.sde.preserving import SubVP as SubVP

__all__ = ["SDE", "Prior", "EDM", "VE", "VP", "SubVP", "Cosine"]
