"""Questions about a field, answered with error bars."""

from scorefield.diagnostics.circulation import loop_circulation as loop_circulation
from scorefield.diagnostics.exterior import exterior_derivative as exterior_derivative
from scorefield.diagnostics.exterior import relative_asymmetry as relative_asymmetry
from scorefield.diagnostics.protocol import Points as Points
from scorefield.diagnostics.protocol import Profile as Profile
from scorefield.diagnostics.protocol import Protocol as Protocol
from scorefield.diagnostics.score_error import denoising_loss as denoising_loss
from scorefield.diagnostics.score_error import score_error as score_error
from scorefield.diagnostics.score_error import validation_loss as validation_loss
