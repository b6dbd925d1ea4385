"""The instances that the law suites are run on: at least one of every public class."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import isabstract
from pkgutil import walk_packages

import torch
from torch import Tensor, nn

import scorefield
from scorefield import (
    DPS,
    EDM,
    MMPS,
    SDE,
    VE,
    VP,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClippedField,
    Cosine,
    DenoiserPrediction,
    DiscreteVP,
    EDMScaling,
    Empirical,
    EnergyScaling,
    EquivariantLocalScore,
    EquivariantScore,
    ExactPosteriors,
    Gaussian,
    GaussianMixture,
    HybridField,
    IdealScore,
    LocalScore,
    NoisePrediction,
    Observation,
    OneClass,
    PatchSizes,
    PiGDM,
    PlantedField,
    PotentialField,
    PreconditionedField,
    ProjectedField,
    PseudoAtoms,
    RectifiedFlow,
    ScoreField,
    ScorePrediction,
    SubVP,
    Target,
    VelocityPrediction,
    VPrediction,
    mixture,
    negation,
    product,
    tempered,
    zero_terminal_snr,
)
from scorefield.domain import Torus
from scorefield.fields.parametrization import Parametrization
from scorefield.fields.planted import Band, Radial
from scorefield.fields.potential import Head
from scorefield.noise import Noise

SDES: dict[str, SDE] = {
    "EDM": EDM(0.002, 80.0),
    "VE": VE(0.01, 50.0),
    "VP": VP(),
    "SubVP": SubVP(),
    "Cosine": Cosine(),
    "Cosine-margin": Cosine(offset=0.0, margin=0.008, t_max=1.0),
    "DiscreteVP": DiscreteVP(levels=100),
    "DiscreteVP-cosine": DiscreteVP(betas="cosine", levels=50),
    "DiscreteVP-zero": DiscreteVP(betas=zero_terminal_snr(DiscreteVP(levels=80).table)),
    "RectifiedFlow": RectifiedFlow(),
}

SHAPES = [(), (5,), (3, 4, 4)]


def normal(shape: tuple[int, ...], purpose: str, seed: int = 0) -> Tensor:
    """Standard normals in float64, a row an index."""
    index = torch.arange(shape[0])
    return Noise(seed).normal(purpose, shape[1:], index, dtype=torch.float64)


def times(sde: SDE, n: int) -> Tensor:
    """Times over the whole range of a process, evenly spaced in the logarithm of the level."""
    ends = torch.tensor(sde.level_range, dtype=torch.float64).log()
    levels = torch.linspace(float(ends[0]), float(ends[1]), n, dtype=torch.float64).exp()
    return sde.time(levels).clamp(sde.t_min, sde.t_max)


class Wave(nn.Module):
    """A small smooth backbone for any event shape, with weights from an address."""

    def __init__(
        self, event_shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.event_shape = event_shape
        dim = max(1, torch.Size(event_shape).numel())

        def weights(rows: int, columns: int, purpose: str) -> nn.Parameter:
            return nn.Parameter((normal((rows, columns), purpose, seed) / rows**0.5).to(dtype))

        self.inward, self.outward = weights(dim, 16, "inward"), weights(16, dim, "outward")
        self.label, self.phase = weights(1, 16, "label"), weights(1, 16, "phase")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = x.reshape(x.shape[0], len(self.inward)) @ self.inward + label.unsqueeze(1) * self.label
        return (torch.tanh(h + self.phase) @ self.outward).reshape(x.shape)


class KnownWave(Wave):
    """The same, with a phase of its own for each of three classes, and one for none of them."""

    def __init__(
        self, event_shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(event_shape, seed, dtype)
        self.classes = 3
        phases = normal((self.classes + 1, 16), "classes", seed)
        self.phases = nn.Parameter(phases.to(dtype))

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        none = label.new_full((len(x),), self.classes, dtype=torch.int64)
        phase = self.phases[none if classes is None else classes]
        h = x.reshape(x.shape[0], len(self.inward)) @ self.inward + label.unsqueeze(1) * self.label
        return (torch.tanh(h + self.phase + phase) @ self.outward).reshape(x.shape)


class SmoothClassifier(nn.Module):
    """A small smooth classifier of points of any event shape in noise."""

    def __init__(self, event_shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.classes = 3
        dim = max(1, torch.Size(event_shape).numel())
        self.inward = nn.Parameter((normal((dim, 8), "inward") / dim**0.5).to(dtype))
        self.outward = nn.Parameter(normal((8, 3), "outward").to(dtype))

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        scaled = x.reshape(len(x), -1) / (1 + noise_level.square()).sqrt().unsqueeze(1)
        return torch.tanh(scaled @ self.inward) @ self.outward


def field_makers(
    shape: tuple[int, ...], sde: SDE, dtype: torch.dtype
) -> dict[str, Callable[[], ScoreField]]:
    """How to make one field of every kind for an event shape; backbones have the dtype."""

    def free(parametrization: Parametrization) -> PreconditionedField:
        return PreconditionedField(Wave(shape, 0, dtype), sde, parametrization=parametrization)

    def potential(parametrization: Parametrization, head: Head) -> PotentialField:
        return PotentialField(Wave(shape, 1, dtype), sde, None, parametrization, head=head)

    def known(kind: type[PreconditionedField]) -> PreconditionedField:
        return kind(KnownWave(shape, 2, dtype), sde, sigma_data=0.7)

    def judge() -> SmoothClassifier:
        return SmoothClassifier(shape, dtype)

    def measured() -> Observation:
        return Observation(normal((2, *shape), "rows"), torch.tensor([0.4, -0.3]), noise=0.8)

    def bent() -> Observation:
        def function(x: Tensor) -> Tensor:
            flat = x.reshape(len(x), -1)
            return torch.cat((torch.sin(flat[:, :1]), flat.square().mean(dim=1, keepdim=True)), 1)

        return Observation(function, torch.tensor([0.4, 0.6]), noise=0.8)

    edm, noise, score = EDMScaling(0.7), NoisePrediction(), ScorePrediction()
    denoiser, v, velocity = DenoiserPrediction(), VPrediction(), VelocityPrediction()
    return {
        "preconditioned": lambda: free(edm),
        "noise prediction": lambda: free(noise),
        "score prediction": lambda: free(score),
        "denoiser prediction": lambda: free(denoiser),
        "v prediction": lambda: free(v),
        "velocity prediction": lambda: free(velocity),
        "potential sum": lambda: potential(edm, "sum"),
        "potential inner": lambda: potential(edm, "inner"),
        "potential denoising": lambda: potential(edm, "denoising"),
        "potential, energy scaling": lambda: potential(EnergyScaling(0.7), "sum"),
        "potential, noise prediction": lambda: potential(noise, "inner"),
        "potential, score prediction": lambda: potential(score, "denoising"),
        "potential, v prediction": lambda: potential(v, "inner"),
        "hybrid": lambda: HybridField(potential(edm, "inner"), free(edm), sigma_c=0.5),
        "of a class": lambda: OneClass(known(PreconditionedField), 1),
        "classifier guidance": lambda: OneClass(
            ClassifierGuidance(potential(edm, "sum"), judge(), scale=0.7), 1
        ),
        "classifier-free guidance": lambda: OneClass(
            ClassifierFreeGuidance(known(PreconditionedField), scale=2.0), 1
        ),
        "classifier-free guidance, potential": lambda: OneClass(
            ClassifierFreeGuidance(known(PotentialField), scale=2.0), 1
        ),
        "clipped": lambda: ClippedField(free(edm), -1.5, 1.5),
        "dynamic thresholding": lambda: ClippedField(free(edm), quantile=0.9),
        "product": lambda: product(free(edm), potential(edm, "sum"), free(noise)),
        "tempered potential": lambda: tempered(potential(edm, "sum"), 1.7),
        "negation of potentials": lambda: negation(
            potential(edm, "inner"), potential(noise, "inner"), 0.4
        ),
        "mixture of potentials": lambda: mixture(
            [potential(edm, "sum"), potential(noise, "inner")], [0.3, 0.7]
        ),
        "DPS": lambda: DPS(potential(edm, "sum"), measured(), scale=0.7),
        "PiGDM": lambda: PiGDM(free(edm), measured(), sigma_data=0.7),
        "PiGDM of a potential": lambda: PiGDM(potential(noise, "inner"), measured()),
        "PiGDM of a function": lambda: PiGDM(free(noise), bent(), 0.7, iterations=2),
        "MMPS": lambda: MMPS(free(edm), measured(), iterations=2),
        "MMPS of a function": lambda: MMPS(free(v), bent(), iterations=1),
        "projected": lambda: ProjectedField(free(edm), measured()),
        "projected on a function": lambda: ProjectedField(free(noise), bent()),
        "planted": lambda: PlantedField(free(edm), Radial(1.0), dose=0.1, band=Band(0.05, 5.0)),
    }


FIELDS = list(field_makers((1,), EDM(), torch.float64))
PARAMETRIZATIONS = [
    EDMScaling(0.7),
    EnergyScaling(0.7),
    NoisePrediction(),
    ScorePrediction(),
    DenoiserPrediction(),
    VPrediction(),
    VelocityPrediction(),
]


def covariance(dim: int, purpose: str) -> Tensor:
    """A well-conditioned random covariance."""
    root = normal((dim, dim), purpose) / dim**0.5
    return 0.3 * root @ root.T + 0.1 * torch.eye(dim, dtype=torch.float64)


@cache
def targets(sde: SDE) -> dict[str, Target]:
    """Targets of every kind, of several event shapes; they have no state.

    Those on a torus are under a process that keeps the mean, if this one does not.
    """
    fitting = sde if sde.keeps_mean else VE(0.01, 50.0)
    means = 1.5 * normal((4, 3), "means")
    weights = torch.tensor([0.1, 0.4, 0.3, 0.2])
    full = torch.stack([covariance(3, f"covariance {k}") for k in range(4)])
    return {
        "gaussian ()": Gaussian(0.7, std=0.4, sde=sde),
        "gaussian isotropic": Gaussian(normal((1, 3), "m")[0], std=0.5, sde=sde),
        "gaussian diagonal": Gaussian(
            normal((1, 1, 2, 2), "m")[0], std=torch.tensor([0.2, 0.9]), sde=sde
        ),
        "gaussian full": Gaussian(
            normal((1, 2, 2), "m")[0], covariance=covariance(4, "c"), sde=sde
        ),
        "mixture ring": GaussianMixture.ring(sde=sde),
        "mixture isotropic": GaussianMixture(
            means, stds=torch.tensor([0.2, 0.4, 0.6, 0.8]), weights=weights, sde=sde
        ),
        "mixture diagonal": GaussianMixture(
            means, stds=0.2 + normal((4, 3), "stds").abs(), weights=weights, sde=sde
        ),
        "mixture full": GaussianMixture(means, covariances=full, weights=weights, sde=sde),
        "empirical": Empirical(normal((9, 3), "points"), sde=sde),
        "empirical images": Empirical(3 + normal((7, 1, 2, 2), "points"), sde=sde),
        "ideal": IdealScore(normal((6, 1, 2, 2), "points"), sde, labels=torch.arange(6) % 3),
        "equivariant": EquivariantScore(normal((3, 2, 2, 3), "images"), sde),
        "atoms on a line": PseudoAtoms([[0.25], [0.75]], std=0.05, sde=fitting),
        "atoms in a plane": PseudoAtoms(
            3 * normal((3, 2), "sites").abs(), std=0.4, period=(3.0, 5.0), sde=fitting
        ),
    }


TARGETS = list(targets(EDM()))
PERIODIC = [name for name, target in targets(EDM()).items() if isinstance(target.domain, Torus)]


@cache
def closed_forms(sde: SDE) -> dict[str, ScoreField]:
    """Fields in closed form that are of no law, or of a part of one; they have no state."""
    images, labels = normal((6, 2, 3, 4), "images"), torch.arange(6) % 3
    ideal, sizes = targets(sde)["ideal"], PatchSizes([0.1, 1.0, 10.0], [1, 3, 5])
    return {
        "ideal of a class": OneClass(ideal, 1),
        "exact posteriors": OneClass(
            ExactPosteriors(
                targets(sde)["mixture full"],
                Observation(normal((2, 3), "rows"), normal((3, 2), "ys"), noise=0.8),
            ),
            1,
        ),
        "local": LocalScore(images, sde),
        "local circular": LocalScore(images, sde, padding="circular"),
        "equivariant local": EquivariantLocalScore(images, sde),
        "equivariant local circular": EquivariantLocalScore(images, sde, padding="circular"),
        "equivariant local valid": EquivariantLocalScore(images, sde, padding="valid"),
        "equivariant local by noise": EquivariantLocalScore(images, sde, sizes),
        "equivariant local of a class": OneClass(
            EquivariantLocalScore(images, sde, labels=labels), 1
        ),
    }


CLOSED_FORMS = list(closed_forms(EDM()))
ONCE = [name for name in CLOSED_FORMS if "local" in name]
"""Those that autograd differentiates once and not twice."""


def public_classes(package, base):
    """The public concrete classes below a base in all modules of a package."""
    modules = [
        import_module(m.name) for m in walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return {
        c
        for module in modules
        for name, c in vars(module).items()
        if isinstance(c, type) and c.__module__ == module.__name__ and issubclass(c, base)
        if not isabstract(c) and c is not base and name in scorefield.__all__
    }
