r"""Denoisers of azula.

A ``KarrasDenoiser`` (``PreconditionedDenoiser`` before) has the scaling of
:class:`~.EDMScaling` with :math:`\sigma_d = 1`; the network of a
``SimpleDenoiser`` receives the same input :math:`x_t / \sqrt{\alpha^2 + \sigma^2}` and predicts the
data. Both receive :math:`\ln(\sigma / \alpha)`, a quarter of which EDM has, and so depend on the
noise level only: their schedule, whose VP is not that of Song et al., can be any. The field is one
of :class:`~.EDM`, with

.. math:: D(\hat x, \lambda) = D_{azula}(\alpha_t \hat x, t), \qquad \lambda = \sigma_t / \alpha_t,

from the least to the greatest noise level of the schedule.

References:
    Azula: diffusion models in PyTorch (Rozet, 2024), version 0.11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.fields.labels import SigmaLabel
from scorefield.fields.parametrization import DenoiserPrediction, EDMScaling, Parametrization
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter, kinds_of
from scorefield.interop.errors import InteropError
from scorefield.sde.exploding import EDM

_KINDS = ("KarrasDenoiser", "PreconditionedDenoiser", "SimpleDenoiser")


def field_of(
    denoiser: Any,
    shape: Sequence[int],
    *,
    classes: int | None = None,
    unlabelled: bool = False,
    keyword: str = "label",
) -> PreconditionedField:
    """The field whose denoiser is the mean of the posterior of one of azula.

    Arguments:
        denoiser: A ``KarrasDenoiser`` or a ``SimpleDenoiser``, with its schedule.
        shape: The shape of a point.
        classes: The number :math:`K` of classes of a class-conditional network.
        unlabelled: Whether class :math:`K` stands for no class.
        keyword: The name under which the network receives classes.

    Raises:
        InteropError: If it is no such denoiser.
        ValueError: If the network cannot be evaluated at such points, see :func:`~.wrap`.
    """
    name = type(denoiser).__name__
    if not kinds_of(denoiser, "azula").intersection(_KINDS):
        raise InteropError(f"{name} is no denoiser of azula: {', '.join(_KINDS)}")
    alpha, sigma = denoiser.schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))
    least, most = (sigma / alpha).tolist()
    simple = "SimpleDenoiser" in kinds_of(denoiser, "azula")
    predicts: Parametrization = EDMScaling(1.0, SigmaLabel())
    words = "the scaled data, sigma_data 1"
    if simple:
        predicts, words = DenoiserPrediction(SigmaLabel()), "the data"
    schedule = type(denoiser.schedule).__name__
    convention = (
        f"{name}: receives ln(sigma / alpha) from {least:.4g} to {most:.4g} ({schedule}), "
        f"predicts {words}"
    )
    return wrap(
        AzulaNetwork(denoiser.backbone, convention, simple, keyword),
        shape=shape,
        predicts=predicts,
        sde=EDM(least, most),
        classes=classes,
        unlabelled=unlabelled,
    )


class AzulaNetwork(Adapter):
    r"""A backbone, as a function of its input and :math:`\sigma`."""

    def __init__(self, network: nn.Module, convention: str, simple: bool, keyword: str) -> None:
        super().__init__(network, convention)
        self.simple, self.keyword = simple, keyword

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        known = {} if classes is None else {self.keyword: classes}
        if self.simple:
            x = x * torch.rsqrt(1 + sigma.reshape(-1, *(1,) * (x.dim() - 1)) ** 2)
        output: Tensor = self.network(x, sigma.log(), **known)
        return output
