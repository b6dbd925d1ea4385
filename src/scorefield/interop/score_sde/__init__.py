"""The score_sde code (Song et al., 2021): its networks, configurations and checkpoints."""

from scorefield.interop.score_sde.build import build as build
from scorefield.interop.score_sde.build import state_of as state_of
