"""The window sizes of a local score, by noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import UserError


@dataclass(frozen=True)
class PatchSizes:
    r"""Window sides by noise level.

    The side at a noise level is that of the nearest level of the table, on a logarithmic scale.
    Levels are noise levels and not steps of a sampler, so that a table means the same on any grid.

    Arguments:
        sigmas: The noise levels :math:`\sigma/\alpha`, in units of the data, ascending.
        sizes: The side at each, an odd number of pixels.

    Raises:
        ValueError: If there is no level, the levels are not positive and ascending, a side is not
            odd, or their numbers differ.
    """

    sigmas: Sequence[float]
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sigmas or len(self.sigmas) != len(self.sizes):
            raise UserError(
                f"patch sizes are one for each noise level, got {len(self.sizes)} for "
                f"{len(self.sigmas)}"
            )
        if not all(math.isfinite(s) and s > 0 for s in self.sigmas):
            raise UserError(f"noise levels are positive numbers, got {list(self.sigmas)}")
        if any(b <= a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise UserError(f"noise levels are in ascending order, got {list(self.sigmas)}")
        for size in self.sizes:
            check_size(size)

    @classmethod
    def same(cls, size: int) -> PatchSizes:
        """One side at all noise levels."""
        return cls((1.0,), (size,))

    def at(self, level: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        r"""The sides at noise levels :math:`\sigma/\alpha`."""
        known = torch.tensor(self.sigmas, dtype=torch.float64, device=level.device).log()
        between = 0.5 * (known[1:] + known[:-1])
        sizes = torch.tensor(self.sizes, device=level.device)
        return sizes[torch.bucketize(level.to(torch.float64).log(), between)]


def check_size(size: int, most: int | None = None) -> None:
    """Raise ``ValueError`` unless a window size is odd and not too large."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise UserError(f"a patch size is a positive odd number of pixels, got {size!r}")
    if most is not None and size > most:
        raise UserError(
            f"a patch of {size} pixels meets itself on a torus of {most}: the largest is "
            f"{most - 1 + most % 2}"
        )
