r"""Models of denoising-diffusion-pytorch.

A ``GaussianDiffusion`` has a table of betas, an objective (``pred_noise``, ``pred_x0``,
``pred_v``), and a network that receives the index of a step; a ``LearnedGaussianDiffusion`` has
channels of a learned variance besides. An ``ElucidatedDiffusion`` is that of EDM.

Points are as the network sees them: where images are normalised, in :math:`[-1, 1]` inside and
:math:`[0, 1]` outside. Its samplers clip the denoised state: see :class:`~.ClippedField`.

References:
    Denoising diffusion probabilistic model, in PyTorch (Wang, 2020), version 2.3.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scorefield.fields.parametrization import EDMScaling
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter, kinds_of
from scorefield.interop.errors import InteropError
from scorefield.sde.exploding import EDM

_LIBRARY = "denoising_diffusion_pytorch"
_KINDS = ("GaussianDiffusion", "LearnedGaussianDiffusion", "ElucidatedDiffusion")
_PREDICTS = {"pred_noise": "noise", "pred_x0": "denoiser", "pred_v": "v"}


def field_of(diffusion: Any) -> PreconditionedField:
    """The field of the network in a diffusion.

    Raises:
        InteropError: If it is none of these diffusions, its network receives its own last
            prediction, or the noise of its training was not white.
        ValueError: If the network is in training mode and draws at random, see :func:`~.wrap`.
    """
    name = type(diffusion).__name__
    # Others that derive from these have networks with more outputs.
    if name not in kinds_of(diffusion, _LIBRARY).intersection(_KINDS):
        raise InteropError(f"{name} is no diffusion of {_LIBRARY}: {', '.join(_KINDS)}")
    if diffusion.self_condition:
        raise InteropError(
            "the network receives its own last prediction (self_condition): it is no function of "
            "point and time, and no field"
        )
    sides = diffusion.image_size
    shape = (diffusion.channels, *((sides, sides) if isinstance(sides, int) else sides))
    if name == "ElucidatedDiffusion":
        scale = float(diffusion.sigma_data)
        words = f"{name}: receives ln(sigma) / 4, predicts the scaled data, sigma_data {scale:g}"
        network = DiffusionNetwork(diffusion.net, words)
        sde = EDM(float(diffusion.sigma_min), float(diffusion.sigma_max))
        return wrap(network, shape=shape, predicts=EDMScaling(scale), sde=sde)
    for setting in ("offset_noise_strength", "immiscible"):
        if getattr(diffusion, setting, 0):
            raise InteropError(
                f"{setting} is {getattr(diffusion, setting)}: the noise of the training is not "
                "white and independent of the data, and its prediction no score"
            )
    steps = diffusion.num_timesteps
    words = f"{name}: receives the index of one of {steps} steps, {diffusion.objective}"
    return wrap(
        DiffusionNetwork(diffusion.model, words),
        shape=shape,
        predicts=_PREDICTS[diffusion.objective],
        time=f"index:{steps}",
        betas=diffusion.betas,
        learned_variance=name == "LearnedGaussianDiffusion",
    )


class DiffusionNetwork(Adapter):
    """A network of points and labels."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        output: Tensor = self.network(x, label)
        return output
