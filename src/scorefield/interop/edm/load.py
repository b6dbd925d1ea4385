r"""Models of EDM as fields, in each of its four conventions.

All are functions :math:`D(x; \sigma)` of :math:`x = x_0 + \sigma\varepsilon` in the published code;
here, each has the process of its training.

* ``VPPrecond``: the network predicts the noise of :math:`x_t = \alpha x_0 + \sigma\varepsilon` with
  :math:`\beta` linear in time, and receives :math:`(M - 1)\,t`: :class:`~.VP`.
* ``VEPrecond``: :math:`D = x + \sigma F(x; \ln\frac\sigma2)`.
* ``iDDPMPrecond``: the network predicts the noise of :math:`M` steps with :math:`\beta_i = 1 -
  \max(\bar\alpha_{i + 1} / \bar\alpha_i, C_1)`, :math:`\bar\alpha_i = \sin^2 \frac\pi2 \frac{M -
  i}{M (1 + C_2)}`, and receives the index :math:`i`, of which the published code takes the nearest,
  and this one the fraction: the two are equal at the steps. The first half of its channels counts.
* ``EDMPrecond``: :math:`D = c_{skip} x + c_{out} F(c_{in} x; \frac14 \ln\sigma)`:
  :class:`~.EDMScaling`.

References:
    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), table 1 and appendix C; published code, ``training/networks.py`` at commit
    008a4e5.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield.checks import check_count
from scorefield.fields.forms import Means, Pair
from scorefield.fields.labels import TimeLabel
from scorefield.fields.parametrization import (
    Coefficients,
    EDMScaling,
    NoisePrediction,
    Parametrization,
)
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop.edm.networks import DhariwalUNet, SongUNet
from scorefield.interop.errors import InteropError
from scorefield.interop.folder import Backbone, arguments, filled, loaded, split_class
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM
from scorefield.sde.preserving import VP
from scorefield.sde.steps import DiscreteVP

RECIPE = (
    'where the code that wrote it is installed, python -c "import json, pathlib, pickle, sys, '
    "torch; net = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())['ema']; folder = "
    "pathlib.Path(sys.argv[2]); folder.mkdir(); torch.save(net.state_dict(), folder / 'model.pt'); "
    "(folder / 'model.json').write_text(json.dumps({'class': type(net).__name__, "
    '**net.init_kwargs}))" FILE.pkl FOLDER writes a folder that is read'
)
"""How to write the folder of a model of EDM or EDM2, as a clause."""

_NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
}
_LEAST, _MOST = 0.002, 80.0
"""The noise levels of the published sampler, where a network has no bounds of its own."""


@dataclass(frozen=True)
class VEScaling(Parametrization):
    r"""The network of ``VEPrecond``: :math:`D = x + \sigma F(x; \ln\frac\sigma2)`, :math:`E = -F`,
    where :math:`\alpha = 1`.
    """

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        sigma = sde.sigma(t)
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return Coefficients(Means(Pair(one, sigma), Pair(zero, -one)), one, (sigma / 2).log())


@dataclass(frozen=True)
class Preconditioner(ABC):
    """A convention: the arguments of the published class but for those of its network."""

    img_resolution: int
    img_channels: int
    label_dim: int = 0
    use_fp16: bool = False
    model_type: Literal["SongUNet", "DhariwalUNet"] = "SongUNet"

    outputs: ClassVar[int] = 1
    """The channels of the network for each of the image."""

    words: ClassVar[str]
    """What the network predicts, and what it receives."""

    @abstractmethod
    def process(self) -> tuple[SDE, Parametrization]:
        """The process of the training, and the parametrisation of the network."""


@dataclass(frozen=True)
class VPPrecond(Preconditioner):
    """Of the variance-preserving process of Song et al."""

    beta_d: float | int = 19.9
    beta_min: float | int = 0.1
    M: int = 1000
    epsilon_t: float | int = 1e-5

    words = "F(α x₀ + σ ε, (M − 1) t) is the noise ε"

    def process(self) -> tuple[SDE, Parametrization]:
        check_count("M", self.M, 2)
        low, high = float(self.beta_min), float(self.beta_min + self.beta_d)
        sde = VP(low, high, t_min=float(self.epsilon_t))
        return sde, NoisePrediction(TimeLabel(self.M - 1))


@dataclass(frozen=True)
class VEPrecond(Preconditioner):
    """Of the variance-exploding process of Song et al."""

    sigma_min: float | int = 0.02
    sigma_max: float | int = 100

    words = "D(x, σ) = x + σ F(x, ln(σ / 2)) with x = x₀ + σ ε"

    def process(self) -> tuple[SDE, Parametrization]:
        return EDM(float(self.sigma_min), float(self.sigma_max)), VEScaling()


@dataclass(frozen=True)
class IDDPMPrecond(Preconditioner):
    """``iDDPMPrecond``: of the steps of Nichol and Dhariwal."""

    model_type: Literal["SongUNet", "DhariwalUNet"] = "DhariwalUNet"
    C_1: float | int = 0.001
    C_2: float | int = 0.008
    M: int = 1000

    outputs = 2
    words = "F(α x₀ + σ ε, i) is the noise ε at step i of M, in the first half of its channels"

    def process(self) -> tuple[SDE, Parametrization]:
        check_count("M", self.M, 2)
        left = torch.linspace(1, 0, self.M + 1, dtype=torch.float64, device="cpu")
        products = torch.sin(0.5 * math.pi * left / (self.C_2 + 1)) ** 2
        betas = 1 - (products[1:] / products[:-1]).clamp(min=self.C_1)
        return DiscreteVP(betas=betas), NoisePrediction(TimeLabel(self.M - 1))


@dataclass(frozen=True)
class EDMPrecond(Preconditioner):
    """The one of EDM itself."""

    model_type: Literal["SongUNet", "DhariwalUNet"] = "DhariwalUNet"
    sigma_min: float | int = 0
    sigma_max: float | int = math.inf
    sigma_data: float | int = 0.5

    words = "D(x, σ) = c_skip x + c_out F(c_in x, ln(σ) / 4) with x = x₀ + σ ε"

    def process(self) -> tuple[SDE, Parametrization]:
        low, high = max(float(self.sigma_min), _LEAST), min(float(self.sigma_max), _MOST)
        return EDM(low, high), EDMScaling(float(self.sigma_data))


PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    "VPPrecond": VPPrecond,
    "VEPrecond": VEPrecond,
    "iDDPMPrecond": IDDPMPrecond,
    "EDMPrecond": EDMPrecond,
}
"""The conventions, by the names of the published classes."""


def load(folder: str | Path) -> PreconditionedField:
    """The field of a model of EDM, in evaluation mode.

    Arguments:
        folder: A folder that :data:`RECIPE` wrote: ``model.json`` with the class of the
            preconditioner and its arguments, ``model.pt`` or ``model.safetensors`` with its state.

    Raises:
        InteropError: If it is no such folder, a file in it has code or is damaged, or the
            configuration and the weights do not fit.
    """
    return loaded(Path(folder), RECIPE, field_of)


def field_of(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> PreconditionedField:
    """The field of a configuration and a state dict, in evaluation mode.

    Augmentation labels are zero, ``use_fp16`` is without effect, and a call without classes has the
    label of zeros where ``label_dropout`` is positive; otherwise it is an error.

    Arguments:
        config: The class under ``class`` and its arguments, those of the network among them.
        state: The state dict, with or without the prefix ``model.``.

    Raises:
        InteropError: If an argument is missing, unknown or of another type, or a weight is missing,
            surplus or of another shape.
        ValueError: If a value does not fit.
    """
    name, given = split_class(config, PRECONDITIONERS)
    kind = PRECONDITIONERS[name]
    known = signature(kind).parameters
    outer = {key: given.pop(key) for key in list(given) if key in known}
    convention = kind(**arguments(name, kind, outer))
    sde, parametrization = convention.process()
    state = dict(state)
    if kind is IDDPMPrecond and "u" in state:
        _check_table(sde, state.pop("u"))
    network = _network(convention, given, state)
    network.convention = f"{name} of EDM, {convention.model_type}: {kind.words}; {network.words()}"
    return PreconditionedField(network, sde, parametrization=parametrization).eval()


def _network(
    convention: Preconditioner, given: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Backbone:
    kind, channels = _NETWORKS[convention.model_type], convention.img_channels
    own = {
        "img_resolution": convention.img_resolution,
        "in_channels": channels,
        "out_channels": channels * convention.outputs,
        "label_dim": convention.label_dim,
    }
    settings = arguments(convention.model_type, kind, given, own)
    weights = {key.removeprefix("model."): weight for key, weight in state.items()}
    return filled(lambda: kind(**settings), weights)


def _check_table(sde: SDE, given: Tensor) -> None:
    """Raises :class:`InteropError` unless the table of noise levels in a state dict is that of the
    configuration: it ends with zero, and is rounded to single precision at each step.
    """
    assert isinstance(sde, DiscreteVP)
    times = torch.linspace(1, 0, sde.levels, dtype=torch.float64, device="cpu")
    table = sde.noise_level(times)
    if len(given) != len(table) + 1 or not torch.allclose(given[:-1].double(), table, rtol=0.02):
        raise InteropError("u in the state dict is another table than that of M, C_1 and C_2")
