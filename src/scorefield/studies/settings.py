"""The settings of every study: what can be chosen, the defaults, and the help of the command line.

This is the one place of their defaults; the command line reads it. No library is imported here, so
that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_type_hints

from scorefield.errors import ConfigError, UserError

Dataset = Literal["digits", "mnist", "fashion_mnist", "cifar10", "celeba"]
Kind = Literal["els", "ls", "is"]
Points = Literal["trajectory", "noise", "data"]
Unit = Literal["score", "noise", "denoiser"]
Method = Literal["euler", "heun", "predictor_corrector", "ddim", "dpm_solver"]

PRECISION = 0.01
"""The default relative standard error of norms estimated by probes."""
LAST_SEED = 2**63 - 1


class Option(NamedTuple):
    """A setting of the command line: its help, the least value, the name of a positional argument
    (empty for an option), whether results depend on it, and the largest value.
    """

    help: str
    least: int | None = None
    metavar: str = ""
    numbers: bool = True
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a study.

    Raises:
        ValueError: If a number is below its least value or above its largest.
    """

    out: ClassVar[str]
    """The folder of the results."""
    on_device: ClassVar[bool] = False
    """Whether the study runs on a device that is chosen; others run on the CPU."""

    def __post_init__(self) -> None:
        for name, option in self.options().items():
            value = getattr(self, name)
            if option.least is not None and value is not None and value < option.least:
                raise UserError(f"{name} is {value}, it must be at least {option.least}")
            if option.most is not None and value > option.most:
                raise UserError(f"{name} is {value}, it must be at most {option.most}")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """The settings that are options, by name."""
        hints = get_type_hints(cls, include_extras=True)
        found = {f.name: getattr(hints[f.name], "__metadata__", ()) for f in fields(cls)}
        return {name: extra[0] for name, extra in found.items() if extra}

    def folder(self, out: Path) -> Path:
        """The folder of the results, from what the command line was given for it."""
        return out

    def plain(self) -> dict[str, Any]:
        """The settings that results depend on, as plain values."""
        options = self.options()
        names = [f.name for f in fields(self) if f.name not in options or options[f.name].numbers]
        return {name: _plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Calibration(Settings):
    """The settings of the calibration of diagnostics."""

    out: ClassVar[str] = "results/calibration"

    repeats: Annotated[int, Option("Repetitions per coverage.", least=20)] = 100
    dims: Annotated[tuple[int, ...], Option("Dimensions: some of 2, 64 and 784.")] = (2, 64, 784)
    only: Annotated[
        tuple[str, ...], Option("Diagnostics, as in 'loops;path gap'; all by default.")
    ] = ()
    jobs: Annotated[int, Option("The number of parallel processes.", least=1, numbers=False)] = 2


@dataclass(frozen=True, kw_only=True)
class Coverage(Settings):
    """The settings of the coverage of intervals."""

    out: ClassVar[str] = "results/coverage"

    repeats: Annotated[int, Option("Repetitions of each measurement.", least=20)] = 1000
    jobs: Annotated[int, Option("Number of processes at a time.", least=1, numbers=False)] = 2


@dataclass(frozen=True, kw_only=True)
class OfRuns(Settings):
    """The settings of a study of runs."""

    on_device: ClassVar[bool] = True

    trust_code: Annotated[
        bool, Option("Import custom classes that the runs name.", numbers=False)
    ] = False


@dataclass(frozen=True, kw_only=True)
class Dose(OfRuns):
    """The settings of the study of planted and trained errors.

    Arguments:
        doses: The doses in each of the bands.
        bands: The bands, of :data:`~scorefield.studies.dose.cases.BANDS`.
        slices: The number of narrow bands, of equal width in the logarithm of the noise level.
        slice_dose: The dose in each of them.
        kinds: The kinds of error.
        mixtures: The number of mixtures of them, of random weights, dose and band.
        levels: The number of noise levels of the measures of an error.
        samples: The number of samples in a set, generated and real.
        sets: The number of pairs of sets whose distances are averaged.
        points: The number of points whose likelihood is computed.
        sampler_steps: The number of steps of Heun's method.
        tolerance: The tolerance of the likelihood's integrator, relative and absolute.
        trained_tolerance: That for trained fields, whose loss is larger.
        pairs: The number of pairs of real sets behind the noise floor.
        seed: The seed of data, starting noise and waves.
    """

    out: ClassVar[str] = "results/dose"

    runs: Annotated[
        tuple[Path, ...],
        Option("Folders of runs on two coordinates of known distribution.", metavar="RUN..."),
    ] = ()
    doses: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    bands: tuple[str, ...] = ("all", "low", "middle", "high")
    slices: int = 6
    slice_dose: float = 0.1
    kinds: tuple[str, ...] = ("rotated score", "swirl", "rotation", "gradient")
    mixtures: int = 16
    levels: int = 6
    samples: int = 4096
    sets: int = 4
    points: int = 512
    sampler_steps: int = 48
    tolerance: float = 1e-7
    trained_tolerance: float = 1e-4
    pairs: int = 20
    seed: Annotated[int, Option("Seed of data and errors.", least=0, most=LAST_SEED)] = 0


@dataclass(frozen=True, kw_only=True)
class OfImages(OfRuns):
    """The settings of a study of image models."""

    label: Annotated[int | None, Option("The class of all images.", least=0)] = None
    data: Annotated[Path | None, Option("Folder of the images; that of the run by default.")] = None


@dataclass(frozen=True, kw_only=True)
class Exterior(OfImages):
    """The settings of the exterior derivative along sampling trajectories."""

    out: ClassVar[str] = "results/exterior_derivative"

    dataset: Annotated[Dataset, Option("Data set of networks and closed forms.")]
    n: Annotated[int, Option("Starting noises; two or more give error bars.", least=1)] = 1
    steps: Annotated[int, Option("Steps from noise to images.", least=1)] = 20
    unet: Annotated[Path | None, Option("A trained U-Net: its run, or a file of weights.")] = None
    resnet: Annotated[Path | None, Option("A trained ResNet: its run, or a file of weights.")] = (
        None
    )
    machines: Annotated[
        tuple[Kind, ...], Option("Closed forms: some of els, ls and is, or none.")
    ] = (
        "els",
        "ls",
        "is",
    )
    scales: Annotated[
        Path | None, Option("Patch sizes by noise level, as analyze patches writes.")
    ] = None
    size: Annotated[
        int | None, Option("One patch size, in place of --scales; 3 by default.", least=1)
    ] = None
    images: Annotated[
        int | None, Option("Training images of closed forms; 1500 by default.", least=1)
    ] = None
    padding: Annotated[
        Literal["zeros", "circular"] | None,
        Option("Padding of closed forms; that of the networks by default."),
    ] = None
    units: Annotated[Unit, Option("The form of the field that is differentiated.")] = "score"
    points: Annotated[
        tuple[Points, ...], Option("Where to evaluate: some of trajectory, noise, data.")
    ] = (
        "trajectory",
        "noise",
    )
    exact: Annotated[bool, Option("Compute exact Jacobians of networks too.")] = False
    relative_error: Annotated[
        float | None,
        Option("The relative error at which probes of networks stop; 0.01 by default."),
    ] = None
    seed: Annotated[int, Option("Seed of starting noise and probes.", least=0, most=LAST_SEED)] = 0
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        error = self.relative_error
        if self.exact and error is not None:
            raise ConfigError(
                "give either --exact or --relative-error: exact Jacobians need no probes"
            )
        if error is not None and not 0 < error < 1:
            raise ConfigError(f"--relative-error is {error:g}, it must lie between 0 and 1")
        if not self.points or len(set(self.points)) != len(self.points):
            points = list(self.points)
            raise ConfigError(f"there must be points, their kinds named once each, got {points}")
        if self.size is not None and self.scales is not None:
            raise ConfigError("give either --size or --scales: both set the size of patches")
        if self.size is not None and self.size % 2 == 0:
            raise ConfigError(f"--size must be an odd number of pixels, got {self.size}")

    @property
    def probe_precision(self) -> float | None:
        """The relative standard error, at each point, at which probes stop; ``None`` for exact
        Jacobians.
        """
        if self.exact:
            return None
        return PRECISION if self.relative_error is None else self.relative_error

    def folder(self, out: Path) -> Path:
        place = "single_realization" if self.n == 1 else "multiple_realizations"
        return out / self.dataset / place


@dataclass(frozen=True, kw_only=True)
class Patches(OfImages):
    """The settings of the comparison of a network with local scores."""

    out: ClassVar[str] = "results/patches"

    dataset: Annotated[Dataset, Option("Data set that the network was trained on.")]
    network: Annotated[Path, Option("The run, or a file of its weights.")]
    images: Annotated[
        int | None, Option("Training images of closed forms; 1500 by default.", least=2)
    ] = None
    calibrate_on: Annotated[
        int | None, Option("How many of them to calibrate patch sizes with.", least=2)
    ] = None
    n: Annotated[
        int, Option("Samples for the calibration; as many for the comparison.", least=2)
    ] = 8
    steps: Annotated[int, Option("Steps from noise to images.", least=2)] = 20
    sizes: Annotated[
        tuple[int, ...], Option("Odd patch sizes, as in 3,5,7; up to 17 by default.")
    ] = ()
    by: Annotated[Literal["cosine", "l2"], Option("The criterion of the best size.")] = "cosine"
    monotone: Annotated[
        bool, Option("Require sizes that do not decrease with the noise level.")
    ] = False
    machine: Annotated[
        Literal["els", "ls"], Option("The local score: patches of all places, or of the same.")
    ] = "els"
    padding: Annotated[
        Literal["zeros", "circular", "valid"] | None,
        Option("Padding of closed forms; that of the network by default."),
    ] = None
    seed: Annotated[int, Option("Seed of the starting noise.", least=0, most=LAST_SEED)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if even := [size for size in self.sizes if size < 1 or size % 2 == 0]:
            raise ConfigError(f"a patch has a pixel in its middle: its side is odd, not {even[0]}")


@dataclass(frozen=True, kw_only=True)
class Atoms(OfRuns):
    """The settings of the comparison of models of pseudo-atoms with their exact distribution."""

    out: ClassVar[str] = "results/atoms"

    runs: Annotated[tuple[Path, ...], Option("Folders of runs on atoms.", metavar="RUN...")] = ()
    exact: Annotated[bool, Option("Add the exact field as one more model, which needs no run.")] = (
        False
    )
    n: Annotated[int, Option("Samples of each model.", least=2)] = 10_000
    levels: Annotated[int, Option("Noise levels of the diagnostics.", least=1)] = 9
    points: Annotated[int, Option("Noisy points at each level.", least=2)] = 512
    frames: Annotated[int, Option("Noise levels of the film.")] = 41
    sampler: Annotated[Method | None, Option("The sampler; that of the runs by default.")] = None
    steps: Annotated[int | None, Option("The number of its steps.")] = None
    seed: Annotated[int, Option("Seed of starting noise and points.", least=0, most=LAST_SEED)] = 0
    cells: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 2:
            raise UserError(f"cells is {self.cells}, it must be at least 2")
        if not 2 <= self.frames <= 1000:
            raise ConfigError(f"--frames is {self.frames}, it must be an integer from 2 to 1000")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
