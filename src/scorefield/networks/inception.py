r"""The Inception network of 2015 whose features define FID, with the names of its PyTorch weights.

Blocks of parallel convolutions at 35, 17 and 8 pixels, for the resized image

.. math:: \hat x = \frac{x - 128}{128}, \qquad x \in [0, 255]^{3 \times 299 \times 299}.

It is the graph of TensorFlow: means of pooling leave out the border, and the last block takes a
maximum in place of a mean. The resizing is a part of the network, since distances depend on it:
each pixel :math:`i` of the output is the linear interpolation at :math:`i\,n / 299` of the
:math:`n` pixels of the input, corners not aligned, the last pixel repeated.

References:
    Rethinking the Inception architecture for computer vision (Szegedy, Vanhoucke, Ioffe, Shlens and
    Wojna, 2016), section 6.

    GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et
    al., 2017), section 4; Generating images with sparse representations (Nash, Menick, Dieleman and
    Battaglia, 2021), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 299
"""The height and width that images are resized to."""
_SPATIAL = 7


class _Unit(NamedTuple):
    """A convolution with a normalisation by constants and a ReLU; stride 1 keeps the size."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


class _Branch(NamedTuple):
    """Units in a chain, after a pooling; the last ones of ``ends`` are parallel."""

    units: Sequence[_Unit]
    ends: Sequence[_Unit] = ()
    pool: Literal["", "mean", "max", "half"] = ""


def _a(pooled: int) -> list[_Branch]:
    return [
        _Branch([_Unit("branch1x1", 64)]),
        _Branch([_Unit("branch5x5_1", 48), _Unit("branch5x5_2", 64, 5)]),
        _Branch(_chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))),
        _Branch([_Unit("branch_pool", pooled)], pool="mean"),
    ]


def _b() -> list[_Branch]:
    *first, last = _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))
    return [
        _Branch([_Unit("branch3x3", 384, 3, 2)]),
        _Branch([*first, last._replace(stride=2)]),
        _Branch([], pool="half"),
    ]


def _c(inner: int) -> list[_Branch]:
    row, column = (1, 7), (7, 1)
    once = _chain("branch7x7", (inner, 1), (inner, row), (192, column))
    ways = ((inner, 1), (inner, column), (inner, row), (inner, column), (192, row))
    return [
        _Branch([_Unit("branch1x1", 192)]),
        _Branch(once),
        _Branch(_chain("branch7x7dbl", *ways)),
        _Branch([_Unit("branch_pool", 192)], pool="mean"),
    ]


def _d() -> list[_Branch]:
    *first, last = _chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))
    return [
        _Branch([_Unit("branch3x3_1", 192), _Unit("branch3x3_2", 320, 3, 2)]),
        _Branch([*first, last._replace(stride=2)]),
        _Branch([], pool="half"),
    ]


def _e(pool: Literal["mean", "max"]) -> list[_Branch]:
    def ends(name: str) -> list[_Unit]:
        return [_Unit(f"{name}a", 384, (1, 3)), _Unit(f"{name}b", 384, (3, 1))]

    twice = _chain("branch3x3dbl", (448, 1), (384, 3))
    return [
        _Branch([_Unit("branch1x1", 320)]),
        _Branch([_Unit("branch3x3_1", 384)], ends("branch3x3_2")),
        _Branch(twice, ends("branch3x3dbl_3")),
        _Branch([_Unit("branch_pool", 192)], pool=pool),
    ]


def _chain(name: str, *units: tuple[int, int | tuple[int, int]]) -> list[_Unit]:
    return [
        _Unit(f"{name}_{k + 1}", channels, kernel) for k, (channels, kernel) in enumerate(units)
    ]


_BLOCKS: dict[str, tuple[int, list[_Branch]]] = {
    "Mixed_5b": (192, _a(32)),
    "Mixed_5c": (256, _a(64)),
    "Mixed_5d": (288, _a(64)),
    "Mixed_6a": (288, _b()),
    "Mixed_6b": (768, _c(128)),
    "Mixed_6c": (768, _c(160)),
    "Mixed_6d": (768, _c(160)),
    "Mixed_6e": (768, _c(192)),
    "Mixed_7a": (768, _d()),
    "Mixed_7b": (1280, _e("mean")),
    "Mixed_7c": (2048, _e("max")),
}
_STEM = {
    "Conv2d_1a_3x3": (3, 32, 3, 2, 0),
    "Conv2d_2a_3x3": (32, 32, 3, 1, 0),
    "Conv2d_2b_3x3": (32, 64, 3, 1, 1),
    "Conv2d_3b_1x1": (64, 80, 1, 1, 0),
    "Conv2d_4a_3x3": (80, 192, 3, 1, 0),
}
_POOLED = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")


class Inception(nn.Module):
    """The network, in evaluation mode; its weights are those of a state dict."""

    kind = "inception"
    sizes: ClassVar[dict[str, int]] = {
        "features": 2048,
        "spatial": _SPATIAL * 17 * 17,
        "logits": 1008,
    }
    """The number of columns of each of its outputs."""
    resizing = f"bilinear-{SIDE}-tf1"
    """How images are brought to its size."""

    def __init__(self) -> None:
        super().__init__()
        for name, (inputs, channels, kernel, stride, padding) in _STEM.items():
            self.add_module(name, _Convolution(inputs, channels, (kernel, kernel), stride, padding))
        for name, (inputs, branches) in _BLOCKS.items():
            self.add_module(name, _Block(inputs, branches))
        self.fc = nn.Linear(2048, 1008)
        self.eval().requires_grad_(False)

    def forward(self, images: UInt8[Tensor, "n 3 height width"]) -> dict[str, Float[Tensor, "n _"]]:
        """The features of images in bytes: the 2,048 of the last pooling; ``spatial``, the first 7
        channels of the first branch of the third block at 17 pixels, row by row with the channels
        last; and ``logits``, without their biases, as the Inception Score takes them.
        """
        x = (_resized(images.to(self.fc.weight.dtype)) - 128) / 128
        for name in _STEM:
            x = self.get_submodule(name)(x)
            if name in _POOLED:
                x = F.max_pool2d(x, 3, 2)
        spatial = x
        for name in _BLOCKS:
            block = self.get_submodule(name)
            if name == "Mixed_6d":
                spatial = block.get_submodule("branch1x1")(x)[:, :_SPATIAL]
            x = block(x)
        features = x.mean(dim=(2, 3))
        return {
            "features": features,
            "spatial": spatial.permute(0, 2, 3, 1).flatten(1),
            "logits": features @ self.fc.weight.mT,
        }


class _Convolution(nn.Module):
    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int,
        padding: int | tuple[int, int],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Block(nn.Module):
    """Branches side by side, joined along the channels."""

    def __init__(self, inputs: int, branches: Sequence[_Branch]) -> None:
        super().__init__()
        self._branches = branches
        for branch in branches:
            channels = inputs
            for unit in branch.units:
                self._add(unit, channels)
                channels = unit.channels
            for unit in branch.ends:
                self._add(unit, channels)

    def _add(self, unit: _Unit, inputs: int) -> None:
        k = unit.kernel
        kernel = (k, k) if isinstance(k, int) else k
        padding = (kernel[0] // 2, kernel[1] // 2) if unit.stride == 1 else 0
        made = _Convolution(inputs, unit.channels, kernel, unit.stride, padding)
        self.add_module(unit.name, made)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self._branches:
            h = _pooled(x, branch.pool)
            for unit in branch.units:
                h = self.get_submodule(unit.name)(h)
            ends = [self.get_submodule(unit.name)(h) for unit in branch.ends]
            found += ends or [h]
        return torch.cat(found, dim=1)


def _pooled(x: Tensor, pool: str) -> Tensor:
    if pool == "mean":
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if pool == "max":
        return F.max_pool2d(x, 3, 1, 1)
    return F.max_pool2d(x, 3, 2) if pool == "half" else x


def _resized(x: Tensor) -> Tensor:
    """Images of the network's size; see the module."""
    for dim in (3, 2):
        size = x.shape[dim]
        # The product is taken in single precision, as the graph takes it.
        at = torch.arange(SIDE, dtype=torch.float32, device=x.device) * (size / SIDE)
        low = at.to(torch.int64)
        high = (low + 1).clamp(max=size - 1)
        share = (at - low).to(x.dtype)
        share = share if dim == 3 else share[:, None]
        below = x.index_select(dim, low)
        x = below + (x.index_select(dim, high) - below) * share
    return x
