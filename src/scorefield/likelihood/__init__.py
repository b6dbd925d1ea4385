"""The density of a model, by the change of variables along its probability flow."""

from scorefield.likelihood.compute import EXACT_UP_TO, SolverError, Trace, log_prob
from scorefield.likelihood.density import (
    CENTERED_BYTES,
    UNIT_BYTES,
    BitsPerDim,
    DataTransform,
    LogProb,
)

__all__ = [
    "log_prob",
    "LogProb",
    "BitsPerDim",
    "DataTransform",
    "CENTERED_BYTES",
    "UNIT_BYTES",
    "Trace",
    "SolverError",
    "EXACT_UP_TO",
]
