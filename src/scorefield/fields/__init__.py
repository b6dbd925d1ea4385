"""Score fields: anything with a score, and the forms in which it can be said."""

from scorefield.fields.base import Quantity as Quantity
from scorefield.fields.base import ScoreField as ScoreField
from scorefield.fields.base import convert as convert
from scorefield.fields.base import evaluation_mode as evaluation_mode
from scorefield.fields.classes import Classes as Classes
from scorefield.fields.guided import ClassifierFreeGuidance as ClassifierFreeGuidance
from scorefield.fields.guided import ClassifierGuidance as ClassifierGuidance
from scorefield.fields.hybrid import HybridField as HybridField
from scorefield.fields.labels import IndexLabel as IndexLabel
from scorefield.fields.labels import Label as Label
from scorefield.fields.labels import LogNoiseLabel as LogNoiseLabel
from scorefield.fields.labels import SigmaLabel as SigmaLabel
from scorefield.fields.labels import TimeLabel as TimeLabel
from scorefield.fields.one_class import OneClass as OneClass
from scorefield.fields.planted import Band as Band
from scorefield.fields.planted import Matched as Matched
from scorefield.fields.planted import Perturbation as Perturbation
from scorefield.fields.planted import PlantedField as PlantedField
from scorefield.fields.planted import PredictedNoise as PredictedNoise
from scorefield.fields.planted import Radial as Radial
from scorefield.fields.planted import Turned as Turned
from scorefield.fields.planted import Waves as Waves
from scorefield.fields.planted import right_angle as right_angle
from scorefield.fields.potential import Head as Head
from scorefield.fields.potential import PotentialField as PotentialField
from scorefield.fields.preconditioned import EDMScaling as EDMScaling
from scorefield.fields.preconditioned import NoisePrediction as NoisePrediction
from scorefield.fields.preconditioned import Parametrization as Parametrization
from scorefield.fields.preconditioned import PreconditionedField as PreconditionedField
from scorefield.fields.preconditioned import ScorePrediction as ScorePrediction
from scorefield.fields.preconditioned import TablePrediction as TablePrediction

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
