"""The score_sde code (Song et al., 2021): its networks, configurations and checkpoints."""

from scorefield.interop.score_sde.build import build as build
from scorefield.interop.score_sde.build import state_of as state_of
from scorefield.interop.score_sde.checkpoints import SongCheckpoint as SongCheckpoint
from scorefield.interop.score_sde.checkpoints import read_checkpoint as read_checkpoint
from scorefield.interop.score_sde.configurations import configuration as configuration
from scorefield.interop.score_sde.configurations import configuration_names as configuration_names
from scorefield.interop.score_sde.load import load as load
