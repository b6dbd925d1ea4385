"""Objectives: denoising score matching and the regularisers that go with it."""

from scorefield.objectives.consistency import Consistency as Consistency
from scorefield.objectives.curl import Asymmetry as Asymmetry
from scorefield.objectives.curl import CycleCirculation as CycleCirculation
from scorefield.objectives.curl import LoopCirculation as LoopCirculation
from scorefield.objectives.denoising import Batch as Batch
from scorefield.objectives.denoising import DenoisingScoreMatching as DenoisingScoreMatching
from scorefield.objectives.denoising import LogNormal as LogNormal
from scorefield.objectives.denoising import LogUniform as LogUniform
from scorefield.objectives.denoising import NoiseLaw as NoiseLaw
from scorefield.objectives.denoising import Reduction as Reduction
from scorefield.objectives.denoising import TableLaw as TableLaw
from scorefield.objectives.denoising import UniformTime as UniformTime
from scorefield.objectives.fokker_planck import FokkerPlanck as FokkerPlanck
from scorefield.objectives.fokker_planck import FokkerPlanckWeighting as FokkerPlanckWeighting
from scorefield.objectives.objective import Losses as Losses
from scorefield.objectives.objective import Objective as Objective
from scorefield.objectives.regression import BoundaryMatching as BoundaryMatching
from scorefield.objectives.regression import Oracle as Oracle
from scorefield.objectives.regression import Regression as Regression
from scorefield.objectives.regularizer import BalancedWeight as BalancedWeight
from scorefield.objectives.regularizer import PointLaw as PointLaw
from scorefield.objectives.regularizer import PointRegularizer as PointRegularizer
from scorefield.objectives.regularizer import Regularizer as Regularizer
