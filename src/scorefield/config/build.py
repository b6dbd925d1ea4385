"""From a whole configuration to the objects that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scorefield.config import data, field, objective
from scorefield.config.config import Config
from scorefield.config.sde import build_sde

if TYPE_CHECKING:
    from scorefield.data import DataSource
    from scorefield.fields import ScoreField
    from scorefield.objectives import Objective


def build_source(config: Config) -> DataSource:
    """The data; a known distribution is diffused by the configuration's process."""
    return data.build_source(config.data, build_sde(config.sde))


def build_field(config: Config, source: DataSource) -> ScoreField:
    """The untrained field; its weights are a function of the configuration's seed.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    return field.build_field(config.field, config.sde, config.data, source, config.seed)


def build_objective(config: Config, source: DataSource) -> Objective:
    """Denoising score matching with the regularisers of the configuration.

    Raises:
        ConfigError: If a regulariser lies outside the noise levels of the process.
    """
    return objective.build_objective(config.objective, config.field, config.sde, source)
