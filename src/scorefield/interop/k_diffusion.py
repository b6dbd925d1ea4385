r"""Denoisers of k-diffusion.

They are functions of :math:`x_0 + \sigma\varepsilon` and :math:`\sigma`: denoisers of
:class:`~.EDM`. With the scaling of :class:`~.EDMScaling`, the network :math:`F` receives

* in a ``Denoiser``, :math:`\sigma` itself, with a :math:`\sigma_d` that is 1 unless given;
* in a ``VDenoiser``, :math:`t = \frac{2}{\pi} \arctan\sigma`; :math:`\sigma_d` is 1, and
  :math:`-F` is in the place of :math:`F`;
* in a discrete denoiser, the place of :math:`\ln\sigma` in the table of the steps, interpolated
  between two of them. That of ``DiscreteVDDPMDenoiser`` is otherwise a ``VDenoiser``; that of
  ``DiscreteEpsDDPMDenoiser`` predicts the noise.

With ``quantize`` the place is rounded: such a field is piecewise constant in time, and refused.

References:
    K-diffusion (Crowson, 2022), version 0.1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from scorefield.fields.labels import SigmaLabel
from scorefield.fields.parametrization import EDMScaling, NoisePrediction, Parametrization
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter, kinds_of
from scorefield.interop.errors import InteropError
from scorefield.sde.exploding import EDM

_LABELS = {
    "Denoiser": "sigma",
    "VDenoiser": "2 arctan(sigma) / pi",
    "DiscreteEpsDDPMDenoiser": "the place of ln(sigma) among {} steps",
    "DiscreteVDDPMDenoiser": "the place of ln(sigma) among {} steps",
}


def field_of(
    denoiser: Any,
    shape: Sequence[int],
    sde: EDM | None = None,
    *,
    classes: int | None = None,
    unlabelled: bool = False,
    keyword: str = "class_cond",
) -> PreconditionedField:
    """The field whose denoiser is one of k-diffusion.

    Arguments:
        denoiser: A ``Denoiser``, a ``VDenoiser``, or a discrete denoiser, those for the models of
            OpenAI and CompVis among them.
        shape: The shape of a point.
        sde: The process, for the range of noise levels; by default that of the table of a discrete
            denoiser, and ``EDM()`` for the others.
        classes: The number :math:`K` of classes of a class-conditional network.
        unlabelled: Whether class :math:`K` stands for no class.
        keyword: The name under which the network receives classes.

    Raises:
        InteropError: If it is no such denoiser, or its times are quantised.
        ValueError: If the network cannot be evaluated at such points, see :func:`~.wrap`.
    """
    name = type(denoiser).__name__
    kind = next((k for k in _LABELS if k in kinds_of(denoiser, "k_diffusion")), None)
    if kind is None:
        raise InteropError(f"{name} is no denoiser of k-diffusion: {', '.join(_LABELS)}")
    steps = len(getattr(denoiser, "sigmas", ()))
    if steps and denoiser.quantize:
        raise InteropError(
            f"{name} quantises its times: its field is piecewise constant in time, and has no "
            "score between two steps; make it with quantize=False"
        )
    if sde is None:
        sde = EDM(float(denoiser.sigma_min), float(denoiser.sigma_max)) if steps else EDM()
    scale, label = float(denoiser.sigma_data), _LABELS[kind].format(steps)
    predicts: Parametrization = EDMScaling(scale, SigmaLabel())
    words = f"the scaled data, sigma_data {scale:g}"
    if kind == "DiscreteEpsDDPMDenoiser":
        predicts, words = NoisePrediction(SigmaLabel()), "the noise"
    convention = f"{name}: receives {label}, predicts {words}"
    return wrap(
        KDiffusionNetwork(denoiser, convention, kind, keyword),
        shape=shape,
        predicts=predicts,
        sde=sde,
        classes=classes,
        unlabelled=unlabelled,
    )


class KDiffusionNetwork(Adapter):
    r"""The network in a denoiser, as a function of its input and :math:`\sigma`."""

    def __init__(self, network: nn.Module, convention: str, kind: str, keyword: str) -> None:
        super().__init__(network, convention)
        self.kind, self.keyword = kind, keyword

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        known = {} if classes is None else {self.keyword: classes}
        denoiser: Any = self.network
        match self.kind:
            case "Denoiser":
                return denoiser.inner_model(x, sigma, **known)
            case "VDenoiser":
                return -denoiser.inner_model(x, denoiser.sigma_to_t(sigma), **known)
            case "DiscreteVDDPMDenoiser":
                return -denoiser.get_v(x, denoiser.sigma_to_t(sigma), **known)
        _, c_in = denoiser.get_scalings(sigma)
        scaled = x * c_in.reshape(-1, *(1,) * (x.dim() - 1))
        return denoiser.get_eps(scaled, denoiser.sigma_to_t(sigma), **known)
