r"""A network compared with the local score that is most like it.

The patch sizes of the local score are calibrated on some samples of the network, and the two are
compared on others: at the noisy points along their trajectories, and by the images that both end in
when they start from the same noise. The ideal score of the same training images, which has learnt
them by heart, is compared with the network in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.scales import ScaleCalibration, calibrate_sizes
from scorefield.diagnostics.trajectories import Agreement, field_agreement, image_agreement, walk
from scorefield.engine import device_of
from scorefield.errors import ConfigError
from scorefield.estimate import Estimate, mean, proportion
from scorefield.fields.base import ScoreField
from scorefield.fields.forms import Quantity
from scorefield.metrics.patch_statistics import Spectrum, nearest_patches, radial_power_spectrum
from scorefield.samplers.solvers import DDIM
from scorefield.studies.frame import Work
from scorefield.studies.networks import Choice, closed_form
from scorefield.studies.settings import Patches
from scorefield.targets.windows import Padding, PatchSizes

NETWORK, LOCAL, IDEAL, REAL = "network", "local machine", "ideal score", "held-out images"
QUANTITIES: tuple[Quantity, ...] = ("score", "denoiser")

_LARGEST = 17
_LOOKED_UP = 3


@dataclass(frozen=True, eq=False)
class Subjects:
    """What is compared."""

    network: ScoreField
    images: Float[Tensor, "n channels height width"]
    held_out: Float[Tensor, "m channels height width"]
    sampler: DDIM
    padding: Padding
    about: Mapping[str, Any]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The odd sizes from 3 that fit into an image, up to 17."""
        return tuple(range(3, min(*self.images.shape[2:], _LARGEST) + 1, 2))


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well a network is described by patches of its training images.

    Noise levels fall, agreement at each is by model and form, that of final images, of the same
    starting noise, by model. Distances are those of a patch from the nearest of the training
    images, in root mean square a pixel, by the images and by size.
    """

    about: Mapping[str, Any]
    calibration: ScaleCalibration
    choice: Choice
    sizes: PatchSizes
    sigmas: tuple[float, ...]
    levels: Mapping[tuple[str, Quantity], tuple[Agreement, ...]]
    finals: Mapping[str, Agreement]
    images: Mapping[str, Float[Tensor, "n channels height width"]]
    distances: Mapping[str, Mapping[int, Estimate]]
    spectra: Mapping[str, Spectrum]

    def rows(self) -> list[dict[str, Any]]:
        """One record a model, form and noise level, and one of its final images."""
        rows = [
            _row(name, quantity, sigma, found, self.levels[IDEAL, quantity][k])
            for (name, quantity), levels in self.levels.items()
            for k, (sigma, found) in enumerate(zip(self.sigmas, levels, strict=True))
        ]
        finals = self.finals.items()
        return rows + [_row(n, "final image", "", a, self.finals[IDEAL]) for n, a in finals]

    def summary(self) -> dict[str, Any]:
        """The numbers that matter most."""
        local, ideal = self.finals[LOCAL], self.finals[IDEAL]
        share, low, high = proportion(local.beats(ideal), len(local))
        return {
            "samples": len(local),
            "sigmas": list(self.sizes.sigmas),
            "sizes": list(self.sizes.sizes),
            "chosen": self.choice,
            "evaluations": self.calibration.evaluations,
            "final_images": {
                name: {
                    "median_r": asdict(found.median_correlation),
                    "median_r2": asdict(found.median_determination),
                }
                for name, found in self.finals.items()
            },
            "local_beats_ideal": {"share": share, "low": low, "high": high, "n": len(local)},
            "settings": dict(self.about),
        }


def compare(subjects: Subjects, settings: Patches, work: Work | None = None) -> Comparison:
    """Calibrates a local score to a network, and compares both."""
    work = Work() if work is None else work
    network, sampler = subjects.network, subjects.sampler
    images = subjects.images.to(device_of(network))
    few, n = settings.calibrate_on, settings.n
    if few is not None and few > len(images):
        raise ConfigError(
            f"sizes cannot be calibrated with {few} training images, there are {len(images)}"
        )
    steps, sde, padding = sampler.steps, network.sde, settings.padding or subjects.padding
    calibration = work.part(
        "calibration",
        lambda: calibrate_sizes(
            network,
            lambda size: closed_form(settings.machine, images[:few], sde, size, padding),
            walk(network, sampler, n, settings.seed).states,
            settings.sizes or subjects.sizes,
            settings.by,
            callback=_Counter(work, "calibration", steps),
        ),
    )
    choice: Choice = "monotone" if settings.monotone else "median"
    sizes: PatchSizes = getattr(calibration, choice)
    models = {
        LOCAL: closed_form(settings.machine, images, sde, sizes, padding),
        IDEAL: closed_form("is", images, sde),
    }
    # Not the samples that the sizes were chosen by.
    trajectory = walk(network, sampler, n, settings.seed, first=n)
    compared, by_state = _Counter(work, "comparison", steps), []
    for state in trajectory.states:
        agree = partial(field_agreement, network, models, [state], QUANTITIES)
        by_state.append(work.part(f"comparison/{state.sigma!r}", agree))
        compared(state.sigma)
    finals = {NETWORK: trajectory.samples.cpu()}
    sampled = _Counter(work, "images", 2 * steps)
    for name, model in models.items():
        index = torch.arange(n, 2 * n, device=images.device)
        sample = partial(sampler.sample, model, seed=settings.seed, index=index, batch_size=n)
        draw = partial(sample, callback=lambda state: sampled(state.sigma))
        finals[name] = work.part(f"images/{name}", draw).cpu()
    shown, drawn = {**finals, REAL: subjects.held_out}, {"samples": n, "seed": settings.seed}
    return Comparison(
        {**subjects.about, "machine": settings.machine, "padding": padding, **drawn},
        calibration,
        choice,
        sizes,
        tuple(state.sigma for state in trajectory.states),
        {key: tuple(found[key][0] for found in by_state) for key in by_state[0]},
        {name: image_agreement(finals[name], finals[NETWORK]) for name in models},
        finals,
        {
            name: _distances(some, subjects.images, calibration.sizes)
            for name, some in shown.items()
        },
        {name: radial_power_spectrum(some) for name, some in shown.items()},
    )


class _Counter:
    """Shows the noise levels of a stage that are done."""

    def __init__(self, work: Work, stage: str, total: int) -> None:
        self._work, self._stage, self._total, self._done = work, stage, total, 0

    def __call__(self, sigma: float) -> None:
        self._done += 1
        self._work.show(self._stage, self._done, self._total, f"noise level {sigma:.3g}")
        self._work.report(f"{self._stage} {self._done} of {self._total}  noise level {sigma:.3g}")


def _distances(images: Tensor, train: Tensor, sizes: Sequence[int]) -> dict[int, Estimate]:
    """The mean distance of patches of a few of the sizes, the least and the greatest of them."""
    order = sorted(sizes)
    places = torch.linspace(0, len(order) - 1, min(_LOOKED_UP, len(order))).round().long()
    found = {}
    for size in (order[place] for place in places.tolist()):
        distance = nearest_patches(images, train, size).distance.flatten(1)
        scale = (images.shape[1] * size**2) ** 0.5
        found[size] = mean((distance / scale).mean(dim=1).tolist(), "units of the data")
    return found


def _row(
    name: str, quantity: str, sigma: float | str, found: Agreement, ideal: Agreement
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "quantity": quantity, "sigma": sigma, "n": len(found)}
    for key, median in (("r", found.median_correlation), ("r2", found.median_determination)):
        row |= {
            f"median_{key}": median.value,
            f"median_{key}_low": median.low,
            f"median_{key}_high": median.high,
            "confidence": median.confidence,
        }
    return {**row, "beats_ideal": found.beats(ideal) if name != IDEAL else ""}
