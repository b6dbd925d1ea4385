"""What generated images are compared with: features of a data set, and statistics in files.

Features of a data set are kept beside its runs, in a folder that is named after all that they
depend on: the data, the split, the number of images, what is done to them, and the hash of the
extractor. Their moments are kept with them as ``statistics.npz``, in the form of published files:
``mu`` and ``sigma``, and those of spatial features as ``mu_s`` and ``sigma_s``.

References:
    Published files of this form: EDM (Karras et al., 2022) and TTUR (Heusel et al., 2017), with
    ``mu`` and ``sigma``; ADM (Dhariwal and Nichol, 2021), with all four. All of them are of the
    Inception network of FID.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorefield.data.array_files import read_arrays
from scorefield.data.arrays import FiniteSource
from scorefield.data.order import places
from scorefield.data.source import DataSource, Split, TargetSource
from scorefield.errors import UserError
from scorefield.evaluation.extractors import INCEPTION, Extractor, image_bytes
from scorefield.evaluation.features import FeatureBlocks
from scorefield.evaluation.parts import kept_in
from scorefield.files import reason, write_file
from scorefield.metrics.moments import Moments, Statistics
from scorefield.noise import Noise
from scorefield.world import ALONE, World

MOST = 50_000
"""The most images of a data set that generated ones are compared with."""
FILE = "statistics.npz"
"""The moments of a folder of features."""

_NAMES = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
_HASH = "extractor_sha256"
_BLOCK = 512
_VERSION = 1


class ReferenceSet(NamedTuple):
    """Features of images of a data set, and the folder that they are kept in."""

    features: FeatureBlocks
    folder: Path


def reference_set(
    source: DataSource,
    split: Split,
    extractor: Extractor,
    folder: Path,
    facts: Mapping[str, Any],
    centered: bool,
    world: World = ALONE,
) -> ReferenceSet | None:
    """The features of a split, of all its images or of :data:`MOST` at random; ``None`` if it has
    none. Those that are not kept yet are computed, shared out to processes.

    Arguments:
        source: Images with one channel or three.
        folder: The folder that folders of features are in.
        facts: What the data are, as plain values.
        centered: Whether the values of images lie in [-1, 1].

    Raises:
        UserError: If the points are no images.
    """
    if len(source.shape) != 3:
        raise UserError(
            f"an extractor takes images, and the points of {source.name} have the shape "
            f"{tuple(source.shape)}"
        )
    total = source.count(split) if isinstance(source, FiniteSource) else MOST
    n = min(total, MOST)
    if n == 0:
        return None
    images = partial(_images, source, split, total, centered)
    known = {
        **facts,
        "split": split,
        "n": n,
        "preprocessing": extractor.preprocessing,
        "extractor": extractor.sha256,
        "images": hashlib.sha256(images(0, min(n, _BLOCK)).numpy().tobytes()).hexdigest(),
        "version": _VERSION,
    }
    key = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]
    place = folder / f"{extractor.kind}_{split}_{key}"
    once = kept_in(place)

    def block(first: int, end: int) -> dict[str, Tensor]:
        return once((first, end), lambda: extractor(images(first, end)))

    features = FeatureBlocks(n, _BLOCK, block)
    world.each([partial(_made, block, *bounds) for bounds in features.bounds])
    return ReferenceSet(features, place)


def statistics_of(kept: ReferenceSet, extractor: Extractor) -> dict[str, Statistics]:
    """The moments of the outputs that Fréchet distances are taken on, computed once.

    Raises:
        UserError: If the file of them is damaged.
    """
    file = kept.folder / FILE
    if file.exists():
        try:
            return read_statistics(file, extractor)
        except UserError as error:
            raise UserError(f"{error}; remove it, and it is computed again") from error
    found = {
        output: Moments.of_blocks(kept.features.rows(output)).statistics
        for output in _NAMES
        if output in extractor.sizes
    }
    write_file(file, _content(found, extractor))
    return found


def read_statistics(path: Path, extractor: Extractor) -> dict[str, Statistics]:
    """The statistics in a file, published or kept, by the outputs that they are of.

    Raises:
        UserError: If the file cannot be read, is damaged, lacks an array, is of other sizes, or of
            another extractor.
    """
    names = [name for pair in _NAMES.values() for name in pair]
    try:
        arrays = read_arrays(path, [*names, _HASH])
    except OSError as error:
        raise UserError(f"the statistics {path} cannot be read: {reason(error)}") from error
    except UserError as error:
        raise UserError(f"the statistics {path} are damaged: {error}") from error
    named = arrays.get(_HASH)
    if named is not None and (named.shape != () or named.dtype.kind != "U"):
        raise UserError(f"the statistics {path} are damaged: {_HASH} is not the hash of a file")
    digest = INCEPTION.sha256 if named is None else str(named[()])
    if digest != extractor.sha256:
        # Published files do not name their extractor.
        which = "name none, so it is that of FID," if named is None else "were computed by one"
        raise UserError(
            f"the statistics {path} are of another extractor than {extractor.name}: they {which} "
            f"with the SHA-256 {digest[:12]}…, and features of two extractors cannot be compared"
        )
    found = {}
    for output, (mean, covariance) in _NAMES.items():
        if output in extractor.sizes and (output == "features" or mean in arrays):
            size = extractor.sizes[output]
            found[output] = Statistics(
                _array(arrays, mean, (size,), path, extractor),
                _array(arrays, covariance, (size, size), path, extractor),
            )
    return found


def _array(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    shape: tuple[int, ...],
    path: Path,
    extractor: Extractor,
) -> Tensor:
    if name not in arrays:
        raise UserError(
            f"the statistics {path} have no array {name}: those of EDM, ADM and TTUR have mu and "
            "sigma"
        )
    array = arrays[name]
    if array.shape != shape:
        raise UserError(
            f"the statistics {path} are of another size: {name} has the shape {array.shape}, and "
            f"{extractor.name} needs {shape}"
        )
    if array.dtype.kind != "f":
        raise UserError(
            f"the statistics {path} are damaged: {name} has {array.dtype}, and moments are "
            "floating-point numbers"
        )
    found = torch.from_numpy(array.astype(np.float64))
    if not bool(found.square().sum().isfinite()):
        raise UserError(f"the statistics {path} are damaged: {name} is not a finite moment")
    if found.dim() == 2 and not _may_be_covariance(found):
        raise UserError(f"the statistics {path} are damaged: {name} is no covariance")
    return found


def _may_be_covariance(matrix: Tensor) -> bool:
    """Whether a matrix is symmetric, with variances that bound the covariances by the inequality of
    Cauchy and Schwarz, in the precision of published files.
    """
    variance = matrix.diagonal()
    least = -1e-8 - 1e-4 * float(variance.max())
    bound = variance.clamp(min=0).sqrt()
    within = matrix.abs() <= 1.001 * torch.outer(bound, bound) - least
    symmetric = torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-8)
    return symmetric and bool((variance >= least).all() and within.all())


def _content(found: Mapping[str, Statistics], extractor: Extractor) -> bytes:
    arrays: dict[str, Any] = {_HASH: np.array(extractor.sha256)}
    for output, pair in found.items():
        arrays |= {name: part.numpy() for name, part in zip(_NAMES[output], pair, strict=True)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _made(block: Callable[[int, int], object], first: int, end: int) -> None:
    block(first, end)


def _images(
    source: DataSource, split: Split, total: int, centered: bool, first: int, end: int
) -> Tensor:
    """Images of a split in bytes, by their places in a permutation; never mirrored."""
    index = torch.arange(first, end)
    if isinstance(source, FiniteSource):
        chosen = places(Noise(0), total, 0, index, "reference features")
        stored = source.at(split, chosen)
        if stored.dtype == torch.uint8:
            return stored.cpu()
        return image_bytes(source.values(stored, Noise(0), chosen, torch.float32), centered)
    if isinstance(source, TargetSource):
        step = 1 if split == "test" else 0
        return image_bytes(source.truth.draw(Noise(0), index, step, torch.float32), centered)
    raise UserError(f"{source.name} gives its images by batches only: features need a finite set")
