"""The density of a model, by the change of variables along its probability flow."""

from scorefield.likelihood.compute import EXACT_UP_TO as EXACT_UP_TO
from scorefield.likelihood.compute import SolverError as SolverError
from scorefield.likelihood.compute import Trace as Trace
from scorefield.likelihood.compute import log_prob as log_prob
from scorefield.likelihood.density import CENTERED_BYTES as CENTERED_BYTES
from scorefield.likelihood.density import UNIT_BYTES as UNIT_BYTES
from scorefield.likelihood.density import BitsPerDim as BitsPerDim
from scorefield.likelihood.density import DataTransform as DataTransform
from scorefield.likelihood.density import LogProb as LogProb

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
