r"""A network against the local machine that is most like it.

The machine's patch sizes are calibrated on some samples of the network, and the two are compared on
others: at the noisy points where these pass by, and by the images that both end in when they start
from the same noise. The ideal score of the same training images, which knows them by heart, is
held against the network in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics import (
    Agreement,
    ScaleCalibration,
    State,
    calibrate_sizes,
    field_agreement,
    image_agreement,
    walk,
)
from scorefield.diagnostics.scales import Criterion
from scorefield.errors import ConfigError
from scorefield.estimate import Estimate, mean
from scorefield.fields import ScoreField
from scorefield.fields.base import Quantity
from scorefield.metrics import Spectrum, nearest_patches, radial_power_spectrum
from scorefield.progress import Stages
from scorefield.samplers import DDIM, SamplerState
from scorefield.studies.calibration import proportion
from scorefield.studies.material import (
    Dataset,
    build_machine,
    class_of,
    gather,
    open_networks,
    padding_of,
    reverse,
    under,
)
from scorefield.studies.scale_file import Choice, chosen_sizes
from scorefield.targets import PatchSizes
from scorefield.targets.windows import Padding

NETWORK, LOCAL, IDEAL, REAL = "network", "local machine", "ideal score", "held-out images"
QUANTITIES: tuple[Quantity, ...] = ("score", "denoiser")

_LARGEST = 17
_LOOKED_UP = 3


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    Arguments:
        sizes: The odd patch sizes to try.
        samples: The number of samples to calibrate on, and of others to compare on.
        by: What makes a size the best.
        choice: Which sizes of the calibration the machine is given.
        machine: ``els``, whose patches come from all places, or ``ls``, from the same one.
        padding: What the machine sees outside the images.
        seed: The seed of all noise.
        images: Of how many of the training images the machines of the calibration are made; of all
            by default.

    Raises:
        ConfigError: If a size is even, or there are fewer than two samples.
    """

    sizes: tuple[int, ...]
    samples: int = 8
    by: Criterion = "cosine"
    choice: Choice = "median"
    machine: Literal["els", "ls"] = "els"
    padding: Padding = "zeros"
    seed: int = 0
    images: int | None = None

    def __post_init__(self) -> None:
        if even := [size for size in self.sizes if size < 1 or size % 2 == 0]:
            raise ConfigError(f"a patch has a pixel in its middle: its side is odd, not {even[0]}")
        if self.samples < 2:
            raise ConfigError(f"a comparison takes at least 2 samples, got {self.samples}")


@dataclass(frozen=True, eq=False)
class Bench:
    """What is compared with what.

    Arguments:
        network: The network.
        images: The training images that machines are made of.
        held_out: Images that were not trained on, of any class.
        sampler: The deterministic method that all follow.
        padding: What the network sees outside the images.
        about: What is known of all that, to be recorded.
    """

    network: ScoreField
    images: Float[Tensor, "n channels height width"]
    held_out: Float[Tensor, "m channels height width"]
    sampler: DDIM
    padding: Padding
    about: Mapping[str, Any]

    def sizes(self) -> tuple[int, ...]:
        """The odd sizes from 3 that fit into an image, up to 17."""
        return tuple(range(3, min(*self.images.shape[2:], _LARGEST) + 1, 2))


@dataclass(frozen=True, eq=False)
class PatchStudy:
    """How well a network is described by patches of its training images.

    Attributes:
        plan: What was asked.
        about: What is recorded of network and images.
        calibration: How like the network machines of each size are.
        sizes: The sizes that the machine was given.
        sigmas: The noise levels of the comparison, falling.
        levels: The agreement with the network at each of them, by model and form.
        finals: The agreement of the final images, by model.
        images: The final images, by model, of the same starting noise.
        distances: The mean distance of a patch from the nearest of the training images, in root
            mean square a pixel, by whose images they are and by size.
        spectra: The power of images by frequency, likewise.
    """

    plan: Plan
    about: Mapping[str, Any]
    calibration: ScaleCalibration
    sizes: PatchSizes
    sigmas: tuple[float, ...]
    levels: Mapping[tuple[str, Quantity], tuple[Agreement, ...]]
    finals: Mapping[str, Agreement]
    images: Mapping[str, Float[Tensor, "n channels height width"]]
    distances: Mapping[str, Mapping[int, Estimate]]
    spectra: Mapping[str, Spectrum]

    def rows(self) -> list[dict[str, Any]]:
        """One plain record a model, form and noise level, and one of its final images."""
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
            "samples": self.plan.samples,
            "sigmas": list(self.sizes.sigmas),
            "sizes": list(self.sizes.sizes),
            "chosen": self.plan.choice,
            "evaluations": self.calibration.evaluations,
            "final_images": {
                name: {
                    "median_r": asdict(found.median_correlation),
                    "median_r2": asdict(found.median_determination),
                }
                for name, found in self.finals.items()
            },
            "local_beats_ideal": {"share": share, "low": low, "high": high, "n": len(local)},
        }


def prepare(
    dataset: Dataset,
    network: Path,
    path: Path | None = None,
    images: int | None = None,
    held_out: int = 8,
    label: int | None = None,
    steps: int = 20,
    padding: Padding | None = None,
) -> Bench:
    """Opens a network and gathers the images that it is compared with.

    Arguments:
        dataset: The data set that it was trained on.
        network: The run, or a file of its weights.
        path: Where the images lie.
        images: The number of training images.
        held_out: The number of others.
        label: The class of all images; of any by default.
        steps: The number of steps from noise to images.
        padding: What the network sees outside the images, where it does not say so itself.

    Raises:
        RunError: If the network does not fit the data set, or there are not so many images.
        ValueError: If the images cannot be read.
    """
    # Windows that end at the border are those of a machine only; its points are tori.
    seen = "circular" if padding == "valid" else padding
    subjects = open_networks(dataset, {"--network": network}, label, seen)
    subject = subjects["--network"]
    material = gather(dataset, path, images, subjects)
    train = material.images if label is None else class_of(material, label)
    sde, sampler = reverse(subject.field.sde, steps)
    about = {"dataset": dataset, "images": len(train), "steps": steps, "label": label}
    return Bench(
        under(subject.field, sde),
        train,
        material.held_out(held_out),
        sampler,
        padding_of(subjects),
        {**about, **subject.about},
    )


def study(bench: Bench, plan: Plan, stages: Stages | None = None) -> PatchStudy:
    """Calibrates a local machine to a network, and compares both.

    Arguments:
        bench: The network and the images.
        plan: What is compared.
        stages: Is shown the progress.

    Raises:
        ConfigError: If sizes are to be calibrated with more images than there are.
        ValueError: If an argument is out of its range.
        FloatingPointError: If samples diverge.
    """
    network, images, sampler = bench.network, bench.images, bench.sampler
    if plan.images is not None and plan.images > len(images):
        raise ConfigError(
            f"sizes cannot be calibrated with {plan.images} training images, there are "
            f"{len(images)}"
        )
    watch = _Watch(stages, 2 * sampler.steps)
    sde, padding, n = network.sde, plan.padding, plan.samples
    calibration = calibrate_sizes(
        network,
        lambda size: build_machine(plan.machine, images[: plan.images], sde, size, padding),
        walk(network, sampler, n, plan.seed).states,
        plan.sizes,
        plan.by,
        callback=watch.calibrated,
    )
    sizes = chosen_sizes(calibration, plan.choice)
    machines = {
        LOCAL: build_machine(plan.machine, images, sde, sizes, padding),
        IDEAL: build_machine("is", images, sde),
    }
    # Not the samples that the sizes were chosen by.
    course = walk(network, sampler, n, plan.seed, first=n)
    by_state = []
    for state in course.states:
        by_state.append(field_agreement(network, machines, [state], QUANTITIES))
        watch.compared(state)
    finals = {NETWORK: course.samples}
    for name, machine in machines.items():
        finals[name] = sampler.sample(
            machine,
            seed=plan.seed,
            index=torch.arange(n, 2 * n, device=images.device),
            batch_size=n,
            callback=watch.sampled,
        )
    shown = {**finals, REAL: bench.held_out}
    return PatchStudy(
        plan,
        bench.about,
        calibration,
        sizes,
        tuple(state.sigma for state in course.states),
        {key: tuple(found[key][0] for found in by_state) for key in by_state[0]},
        {name: image_agreement(finals[name], finals[NETWORK]) for name in machines},
        finals,
        {name: _distances(some, images, plan.sizes) for name, some in shown.items()},
        {name: radial_power_spectrum(some) for name, some in shown.items()},
    )


class _Watch:
    """Tells how far a study is."""

    def __init__(self, stages: Stages | None, steps: int) -> None:
        self._stages = stages
        self._steps = steps
        self._done = {"calibration": 0, "comparison": 0, "images": 0}

    def calibrated(self, sigma: float) -> None:
        self._tell("calibration", self._steps // 2, sigma)

    def compared(self, state: State) -> None:
        self._tell("comparison", self._steps // 2, state.sigma)

    def sampled(self, state: SamplerState) -> None:
        self._tell("images", self._steps, state.sigma)

    def _tell(self, stage: str, total: int, sigma: float) -> None:
        self._done[stage] += 1
        if self._stages is not None:
            done = self._done[stage]
            self._stages.show(stage, done, total, f"noise level {sigma:.3g}")
            self._stages.say(f"{stage} {done} of {total}  noise level {sigma:.3g}")


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
