"""Methods that turn a score field into samples."""

from scorefield.samplers.base import Callback as Callback
from scorefield.samplers.base import Sampler as Sampler
from scorefield.samplers.base import SamplerState as SamplerState
from scorefield.samplers.euler import Euler as Euler
from scorefield.samplers.grid import karras_levels as karras_levels
from scorefield.samplers.heun import Heun as Heun

__all__ = ["Sampler", "SamplerState", "Callback", "Euler", "Heun", "karras_levels"]
