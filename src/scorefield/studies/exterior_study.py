"""The exterior-derivative analysis as a command: from what is asked for to the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from torch import Tensor

from scorefield.errors import ConfigError, RunError, hint
from scorefield.estimate import Estimate, format_uncertain
from scorefield.fields import ScoreField
from scorefield.networks import MinimalResNet, MinimalUNet
from scorefield.progress import Stages
from scorefield.runs.subject import Subject
from scorefield.samplers import DDIM
from scorefield.studies.exterior import (
    LABELS,
    Analysis,
    Terms,
    Where,
    analyse,
)
from scorefield.studies.exterior_files import (
    MULTIPLE,
    SINGLE,
    check_free,
    contents,
    over_steps,
    write,
)
from scorefield.studies.material import (
    Dataset,
    Kind,
    Padding,
    build_machine,
    class_of,
    gather,
    open_networks,
    padding_of,
    reverse,
    under,
)
from scorefield.studies.scale_file import read_scales
from scorefield.targets import PatchSizes

TABLE = ("model", "points", "|J - Jᵀ|, mean over steps", "|J - Jᵀ| / 2|J|", "Jacobians")

_SIZE = 3


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Arguments:
        dataset: The data set of the networks and of the machines.
        terms: Starts, points, unit and precision.
        steps: The number of steps from noise to images.
        networks: Trained networks by the names of :data:`~.exterior.LABELS`, ``None`` where there
            is none.
        machines: The closed forms.
        size: The side of the patches that local machines see; 3 where no scales are given.
        scales: In place of ``size``, a file of sizes by noise level.
        images: The number of training images that machines are made of.
        padding: What local machines see outside the images; what the networks see by default.
        label: The class of the images of all models; of any by default.
        data_path: Where the images lie.
    """

    dataset: Dataset
    terms: Terms
    steps: int = 20
    networks: dict[str, Path | None] = field(default_factory=dict)
    machines: tuple[Kind, ...] = ("els", "ls", "is")
    size: int | None = None
    scales: Path | None = None
    images: int | None = None
    padding: Padding | None = None
    label: int | None = None
    data_path: Path | None = None


class Bench(NamedTuple):
    """All that an analysis works on, and what is recorded of it."""

    fields: dict[str, ScoreField]
    sampler: DDIM
    held_out: Tensor | None
    settings: dict[str, Any]


def starts(single: bool, multiple: int | None) -> int:
    """How many starts there are.

    Raises:
        ConfigError: Unless one of both options says it.
    """
    if single == (multiple is not None):
        raise ConfigError(
            "give either --single or --multiple N: each says how many starts there are"
        )
    return 1 if multiple is None else multiple


def precision(exact: bool, wanted: float | None) -> float | None:
    """The precision of probes, none where all Jacobians are to be exact.

    Raises:
        ConfigError: If both are given, or the precision is not in (0, 1).
    """
    if exact and wanted is not None:
        raise ConfigError("give either --exact or --precision: exact Jacobians need no probes")
    if wanted is not None and not 0 < wanted < 1:
        raise ConfigError(f"--precision is {wanted:g}, it must lie between 0 and 1")
    if exact:
        return None
    return Terms.precision if wanted is None else wanted


def named(option: str, text: str, known: Sequence[str]) -> tuple[Any, ...]:
    """The names of a list such as ``els,is``; none of ``none``.

    Raises:
        ConfigError: If one is not known or named twice.
    """
    if text.strip() == "none":
        return ()
    names = [name.strip() for name in text.split(",")]
    for place, name in enumerate(names):
        if name not in known:
            raise ConfigError(f"{option} has {name!r}; {hint(name, known, 'all')}")
        if name in names[:place]:
            raise ConfigError(f"{option} has {name} twice")
    return tuple(names)


def kinds_of_points(text: str) -> tuple[Where, ...]:
    """The kinds of points of ``--points``, in the order in which they are always told.

    Raises:
        ConfigError: As of :func:`named`, or if there is none.
    """
    known: tuple[Where, ...] = get_args(Where)
    points = named("--points", text, known)
    if not points:
        raise ConfigError("--points is none, there must be points at which models are asked")
    return tuple(where for where in known if where in points)


def target_folder(request: Request, output_dir: Path, overwrite: bool) -> Path:
    """Where the results of a request will lie.

    Raises:
        RunError: If there is something already that is not to be overwritten.
    """
    place = SINGLE if request.terms.realizations == 1 else MULTIPLE
    folder = output_dir / request.dataset / place.folder
    check_free(folder, overwrite)
    return folder


def prepare(request: Request) -> Bench:
    """Opens the networks, reads the images and builds the machines.

    Raises:
        ConfigError: If the request contradicts itself.
        RunError: If networks, images and request do not fit each other.
        ValueError: If the images cannot be read, or patches do not fit them.
        OSError: If a file cannot be read.
    """
    sizes = _sizes(request)
    networks = open_networks(
        request.dataset,
        {f"--{name}": path for name, path in request.networks.items()},
        request.label,
        request.padding,
    )
    _check_kinds(networks)
    if not networks and not request.machines:
        raise ConfigError("there is no model: give --unet, --resnet or --machines")
    process = next((subject.field.sde for subject in networks.values()), None)
    sde, sampler = reverse(process, request.steps)
    fields = {
        option.removeprefix("--"): under(subject.field, sde) for option, subject in networks.items()
    }
    images, held_out, padding = None, None, request.padding
    if request.machines or "data" in request.terms.points:
        material = gather(request.dataset, request.data_path, request.images, networks)
        if "data" in request.terms.points:
            held_out = material.held_out(request.terms.realizations, request.terms.seed)
    if request.machines:
        padding = padding or padding_of(networks)
        label = request.label
        images = material.images if label is None else class_of(material, label)
        for kind in request.machines:
            fields[kind] = build_machine(kind, images, sde, sizes, padding)
    fields = {name: fields[name] for name in LABELS if name in fields}
    settings = {
        **_settings(request, sizes),
        "models": list(fields),
        "networks": {option.removeprefix("--"): s.about for option, s in networks.items()},
        "images": 0 if images is None else len(images),
        "padding": padding,
        "process": str(sde),
        "spacing": sampler.spacing,
    }
    return Bench(fields, sampler, held_out, settings)


def run(
    request: Request, folder: Path, overwrite: bool = False, stages: Stages | None = None
) -> tuple[Analysis, list[Path]]:
    """Makes an analysis and writes it.

    Arguments:
        request: What is asked for.
        folder: The folder of the results.
        overwrite: Whether it may exist.
        stages: Shows how far the work is.

    Raises:
        ConfigError, RunError, ValueError, OSError: As of :func:`prepare`,
            :func:`~.exterior.analyse` and :func:`~.exterior_files.write`.
    """
    from scorefield.studies.exterior_figure import pictures

    bench, terms = prepare(request), request.terms
    analysis = analyse(bench.fields, bench.sampler, terms, bench.held_out, stages)
    place = SINGLE if terms.realizations == 1 else MULTIPLE
    files = contents(analysis, place, bench.settings)
    files |= pictures(analysis, place.stem, title(request, bench))
    return analysis, write(folder, files, overwrite)


def table(analysis: Analysis) -> list[list[str]]:
    """Means over steps, under the headings :data:`TABLE`."""
    rows = []
    for (name, where), course in analysis.courses.items():
        known = [_told(over_steps(course)), _told(over_steps(course, "relative"))]
        most = max(course.probes)
        rows.append([LABELS[name], where, *known, f"up to {most} probes" if most else "exact"])
    return rows


def title(request: Request, bench: Bench) -> str:
    """What stands above the pictures, but for the points."""
    label = "" if request.label is None else f", class {request.label}"
    parts = [f"{request.dataset}{label}"]
    if request.machines:
        parts.append(f"machines of {bench.settings['images']} images")
    if {"els", "ls"} & set(request.machines):
        sizes = bench.settings["sizes"]
        low, high = min(sizes), max(sizes)
        parts.append(
            f"{low} × {low} pixels" if low == high else f"patches of {low} to {high} pixels"
        )
    return "; ".join(parts)


def _told(estimate: Estimate) -> str:
    if estimate.value <= estimate.numerical_error:
        return "0 within rounding"
    if estimate.standard_error == 0:
        return f"{estimate.value:.5g}"
    return format_uncertain(estimate.value, estimate.standard_error)


def _check_kinds(networks: Mapping[str, Subject]) -> None:
    """Refuses networks that would be told under the name of another kind."""
    for option, kind, right in (
        ("--unet", MinimalResNet, "--resnet"),
        ("--resnet", MinimalUNet, "--unet"),
    ):
        modules = networks[option].field.modules() if option in networks else ()
        if any(isinstance(module, kind) for module in modules):
            raise RunError(f"{option} was given a {kind.__name__}: give it as {right}")


def _sizes(request: Request) -> int | PatchSizes:
    if request.size is not None and request.scales is not None:
        raise ConfigError("give either --size or --scales: each says how large patches are")
    if request.scales is not None:
        return read_scales(request.scales)
    if request.size is not None and request.size % 2 == 0:
        raise ConfigError(f"--size must be an odd number of pixels, got {request.size}")
    return _SIZE if request.size is None else request.size


def _settings(request: Request, sizes: int | PatchSizes) -> dict[str, Any]:
    """What the numbers depend on, as plain values."""
    terms, table = request.terms, None
    if isinstance(sizes, PatchSizes):
        table = dict(zip(map(str, sizes.sigmas), sizes.sizes, strict=True))
    return {
        "dataset": request.dataset,
        "unit": terms.unit,
        "realizations": terms.realizations,
        "seed": terms.seed,
        "points": list(terms.points),
        "precision": terms.precision,
        "dtype": str(terms.dtype).removeprefix("torch."),
        "steps": request.steps,
        "label": request.label,
        "sizes": list(sizes.sizes) if isinstance(sizes, PatchSizes) else [sizes],
        "sizes_by_noise_level": table,
    }
