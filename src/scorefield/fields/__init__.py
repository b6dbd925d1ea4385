"""Score fields: anything with a score, and the forms in which it can be said."""

from scorefield.fields.base import Quantity, ScoreField, convert, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.fields.composed import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    HybridField,
    OneClass,
)
from scorefield.fields.planted import (
    Band,
    Matched,
    Perturbation,
    PlantedField,
    PredictedNoise,
    Radial,
    Turned,
    Waves,
    right_angle,
)
from scorefield.fields.potential import Head, PotentialField
from scorefield.fields.preconditioned import (
    EDMScaling,
    IndexLabel,
    Label,
    LogNoiseLabel,
    NoisePrediction,
    Parametrization,
    PreconditionedField,
    ScorePrediction,
    SigmaLabel,
    TablePrediction,
    TimeLabel,
)

__all__ = [
    "Quantity",
    "ScoreField",
    "Classes",
    "convert",
    "evaluation_mode",
    "PreconditionedField",
    "Parametrization",
    "EDMScaling",
    "NoisePrediction",
    "ScorePrediction",
    "TablePrediction",
    "Label",
    "LogNoiseLabel",
    "SigmaLabel",
    "TimeLabel",
    "IndexLabel",
    "PotentialField",
    "Head",
    "HybridField",
    "OneClass",
    "ClassifierGuidance",
    "ClassifierFreeGuidance",
    "PlantedField",
    "Perturbation",
    "PredictedNoise",
    "Radial",
    "Waves",
    "Turned",
    "right_angle",
    "Matched",
    "Band",
]
