"""Small networks in the conventions of others, trained on handwritten digits.

Each is a user's module, and what it predicts, receives and was trained on is stated where it is
made a field: by :func:`noise` for DDPM's convention, by :func:`edm` for EDM's, and so on.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

import scorefield as sf
from scorefield.fields.labels import LOG_NOISE, Label
from scorefield.networks.embedding import positional_features
from scorefield.objectives.denoising import DenoisingScoreMatching, NoiseLaw, TableLaw
from scorefield.objectives.objective import Objective

STEPS, BATCH, SHORT, FEW = 700, 64, 150, 64
"""The steps of a training and its batch; of a short training; the points of one on few points."""

DIGITS = sf.digits()
SHAPE = DIGITS.shape


class Net(nn.Module):
    """A user's network: convolutions, the mean of each channel and the label added to them."""

    def __init__(
        self,
        channels: int = 1,
        scale: float = 1.0,
        classes: int | None = None,
        dropout: float = 0.0,
        width: int = 32,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.classes = scale, classes
        self.label = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, 3 * width))
        self.of_class = nn.Embedding((classes or 0) + 1, 3 * width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.means = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        shift = self.label(positional_features(self.scale * label, 64).to(x.dtype))
        if self.classes is not None:
            none = torch.full((len(x),), self.classes, device=x.device)
            shift = shift + self.of_class(none if classes is None else classes)
        h = self.first(x)
        parts = zip(self.convolutions, self.means, shift.chunk(3, dim=1), strict=True)
        for convolution, mean, add in parts:
            u = silu(h)
            whole = add + mean(u.mean(dim=(2, 3)))
            h = h + self.dropout(convolution(u)) + whole[:, :, None, None]
        output: Tensor = self.last(silu(h))
        return output


class Via(nn.Module):
    """A network that receives another label, or whose output is changed."""

    def __init__(
        self,
        net: nn.Module,
        label: Callable[[Tensor], Tensor] = lambda label: label,
        output: Callable[[Tensor], Tensor] = lambda y: y,
    ) -> None:
        super().__init__()
        self.net, self.label, self.output = net, label, output

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.output(self.net(x, self.label(label)))


def changed(source: sf.ArraySource, change: Callable[[Tensor], Tensor]) -> sf.ArraySource:
    """A data set of changed points."""
    return sf.ArraySource(change(source.stored("train")), change(source.stored("test")), "changed")


def coloured() -> sf.ArraySource:
    """The digits in red and orange, as images of three channels."""

    def tint(x: Tensor) -> Tensor:
        share = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(len(x)))
        colour = torch.cat((0.9 + 0 * share, 0.25 + 0.5 * share, 0.1 + 0.2 * share), dim=1)
        return (x + 1) * colour[:, :, None, None] - 1

    return changed(DIGITS, tint)


# Conventions ----------------------------------------------------------------------------------


def noise(net: nn.Module, **claim: Any) -> sf.ScoreField:
    """A network that predicts the noise of a thousand steps, as DDPM does."""
    usual = {"shape": SHAPE, "predicts": "noise", "time": "index:1000", "betas": "linear"}
    return sf.wrap(net.eval(), **{**usual, **claim})


def cosine(net: nn.Module, **claim: Any) -> sf.ScoreField:
    """A network that predicts v at the steps of a cosine."""
    return noise(net, **{"predicts": "v", "betas": "cosine", **claim})


def flow(net: nn.Module, **claim: Any) -> sf.ScoreField:
    """A network that predicts the velocity between data and noise."""
    usual = {"shape": SHAPE, "predicts": "velocity", "time": "t"}
    return sf.wrap(net.eval(), **{**usual, **claim})


def clean(net: nn.Module, **claim: Any) -> sf.ScoreField:
    """A network that predicts the data of VP, in continuous time."""
    return flow(net, **{"predicts": "denoiser", "sde": sf.VP(), **claim})


def level(net: nn.Module, **claim: Any) -> sf.ScoreField:
    """A network that predicts the noise and receives its level."""
    usual = {"predicts": "noise", "time": "sigma", "sde": sf.EDM(sigma_max=20.0)}
    return flow(net, **{**usual, **claim})


def edm(
    net: nn.Module,
    sigma_data: float = DIGITS.std,
    label: Label = LOG_NOISE,
    shape: tuple[int, ...] = SHAPE,
    kind: type[sf.PreconditionedField] = sf.PreconditionedField,
    **settings: Any,
) -> sf.ScoreField:
    """A network in EDM's convention."""
    scaling = sf.EDMScaling(sigma_data, label)
    return kind(net.eval(), sf.EDM(), parametrization=scaling, shape=shape, **settings)


class Recipe(NamedTuple):
    """How a network is made and trained, and claimed rightly."""

    net: Callable[[], nn.Module]
    claim: Callable[..., sf.ScoreField]
    law: NoiseLaw | None = None
    source: Callable[[], sf.ArraySource] = lambda: DIGITS
    steps: int = STEPS
    ema: float = 0.99
    decay: Any = "cosine"


class Trained(NamedTuple):
    """A trained network, its right claim, the data that it is for, and what else might be meant."""

    net: nn.Module
    field: sf.ScoreField
    source: sf.ArraySource
    others: Mapping[str, sf.ScoreField] = {}


def tinted(net: nn.Module) -> sf.ScoreField:
    """A network of coloured digits."""
    return edm(net, coloured().std, shape=(3, *SHAPE[1:]))


def potential(net: nn.Module) -> sf.ScoreField:
    """A network whose product with the point is a potential."""
    return edm(net, kind=sf.PotentialField, head="inner")


def few() -> sf.ArraySource:
    """So few digits that a network learns them by heart."""
    return sf.ArraySource(DIGITS.stored("train")[:FEW], DIGITS.stored("test"), "few digits")


_STEPS, _UNIFORM = TableLaw(1000), sf.UniformTime()
_EARLY = partial(Recipe, lambda: Net(scale=100.0), edm, steps=SHORT, decay="constant")
RECIPES = {
    "EDM": Recipe(lambda: Net(scale=100.0), edm),
    "noise": Recipe(Net, noise, _STEPS),
    "v": Recipe(Net, cosine, _STEPS),
    "velocity": Recipe(lambda: Net(scale=1000.0), flow, _UNIFORM),
    "data": Recipe(lambda: Net(scale=1000.0), clean, _UNIFORM),
    "level": Recipe(lambda: Net(scale=100.0), level, sf.LogUniform()),
    "coloured": Recipe(lambda: Net(3, scale=100.0), tinted, source=coloured),
    "classes, dropout": Recipe(lambda: Net(scale=100.0, classes=10, dropout=0.1), edm),
    "averaged, early": _EARLY(ema=0.98),
    "not averaged, early": _EARLY(ema=0.0),
    "noise, early": Recipe(Net, noise, _STEPS, steps=SHORT),
    "velocity, early": Recipe(lambda: Net(scale=1000.0), flow, _UNIFORM, steps=SHORT),
    "few digits": Recipe(lambda: Net(scale=100.0), edm, source=few),
    "potential": Recipe(lambda: Net(scale=100.0), potential, steps=2 * SHORT),
}
"""The networks, by name; that without averages is trained as that with them."""
OTHER = {"not averaged, early": ("the averaged weights were used", "averaged, early")}
"""What else is known of a network, by a clause, under another name."""


def trained(name: str, steps: int | None = None) -> Trained:
    """The network of a name, in so many steps; its own number by default."""
    recipe = RECIPES[name]
    net, source = recipe.net(), recipe.source()
    objective = None
    if recipe.law is not None:
        objective = Objective(DenoisingScoreMatching("score", recipe.law))
    sf.fit(
        recipe.claim(net),
        source,
        objective=objective,
        steps=steps or recipe.steps,
        batch_size=BATCH,
        optim=sf.Optim(lr=2e-3, decay=recipe.decay, warmup=20, clip=1.0),
        ema_decay=recipe.ema,
        quiet=True,
    )
    return Trained(net, recipe.claim(net), source)
