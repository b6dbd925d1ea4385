r"""The names of the score_sde code for the weights of NCSN++ and DDPM.

There, all layers are in one list, ``all_modules``, in the order of execution, layers without
weights included. An index depends on every option before it, so the list is generated here for a
configuration, with our names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scorefield.interop.score_sde.options import Options

Pairs = list[tuple[str, str]]

_BLOCK = {
    "GroupNorm_0": "first_norm",
    "Conv_0": "first",
    "Dense_0": "level",
    "GroupNorm_1": "second_norm",
    "Conv_1": "second",
}
_PROJECTIONS = {"NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"}
_NIN = {"W": "weight", "b": "bias"}


def names(config: Mapping[str, Any]) -> Pairs:
    """The published name and ours of each weight of an ``ncsnpp`` or ``ddpm``, in published order.

    A published matrix ``W`` has a column for each output, ours a row.

    Arguments:
        config: A configuration in the original keys.

    Raises:
        ValueError: If a key is missing.
    """
    return _List(Options.of(config)).pairs


def without_effect(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of published weights without effect, which ours do not have.

    A published unconditional network has layers for the embedded noise level, and one of a
    single level with ``progressive='residual'`` begins a pyramid that is never used.

    Arguments:
        config: A configuration in the original keys.
    """
    return _List(Options.of(config)).unused


@dataclass
class _List:
    """The published list of layers, built step by step."""

    options: Options
    pairs: Pairs = field(default_factory=list)
    unused: dict[str, tuple[int, ...]] = field(default_factory=dict)
    length: int = 0

    def __post_init__(self) -> None:
        o = self.options
        if o.fourier:
            self._one({"W": "conditioning.fourier.frequencies"}, {"W": (o.channels,)})
        if o.conditional:
            self._layer("conditioning.first")
            self._layer("conditioning.second")
        self._layer("first")
        skips, width = [o.channels], o.channels
        for k, outputs in enumerate(o.widths):
            for j in range(o.blocks):
                width = self._block(f"down.{k}.blocks.{j}", width, outputs)
                if o.attended[k]:
                    self._attention(f"down.{k}.attention.{j}")
                skips.append(width)
            if k < len(o.widths) - 1:
                self._resampling(f"down.{k}.shrink", width)
                width = self._input(f"down.{k}", width)
                skips.append(width)
        self._block("middle.0", width, width)
        self._attention("middle.1")
        self._block("middle.2", width, width)
        for step, k in enumerate(reversed(range(len(o.widths)))):
            for j in range(o.blocks + 1):
                joined = width + skips.pop()
                width = self._block(f"up.{step}.blocks.{j}", joined, o.widths[k])
            if o.attended[k]:
                self._attention(f"up.{step}.attention")
            self._output(f"up.{step}", step, width)
            if k > 0:
                self._resampling(f"up.{step}.grow", width)
        if o.progressive != "output_skip":
            self._layer("last_norm")
            self._layer("last")

    def _one(
        self, parts: Mapping[str, str | None], shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        """One layer of the list, by the names of its weights; ours, or none."""
        for theirs, ours in parts.items():
            name = f"all_modules.{self.length}.{theirs}"
            if ours is not None and not self._silent(ours):
                self.pairs.append((name, ours))
            else:
                self.unused[name] = (shapes or {})[theirs]
        self.length += 1

    def _silent(self, ours: str) -> bool:
        return ours.startswith("conditioning.") and not self.options.conditional

    def _layer(self, ours: str, part: str = "") -> None:
        """A layer with a weight and a bias."""
        self._one({f"{part}{leaf}": f"{ours}.{leaf}" for leaf in ("weight", "bias")})

    def _block(self, ours: str, inputs: int, outputs: int, resampled: bool = False) -> int:
        o = self.options
        parts: dict[str, str | None] = {}
        for theirs, name in _BLOCK.items():
            heard = o.conditional or name != "level"
            for leaf in ("weight", "bias"):
                parts[f"{theirs}.{leaf}"] = f"{ours}.{name}.{leaf}" if heard else None
        if o.biggan and (inputs != outputs or resampled):
            parts |= {f"Conv_2.{leaf}": f"{ours}.shortcut.{leaf}" for leaf in ("weight", "bias")}
        elif inputs != outputs:
            parts |= {f"NIN_0.{leaf}": f"{ours}.shortcut.{name}" for leaf, name in _NIN.items()}
        dense = {"Dense_0.weight": (outputs, 4 * o.channels), "Dense_0.bias": (outputs,)}
        self._one(parts, dense)
        return outputs

    def _attention(self, ours: str) -> None:
        parts = {f"GroupNorm_0.{leaf}": f"{ours}.norm.{leaf}" for leaf in ("weight", "bias")}
        for theirs, name in _PROJECTIONS.items():
            parts |= {f"{theirs}.{leaf}": f"{ours}.{name}.{own}" for leaf, own in _NIN.items()}
        self._one(parts)

    def _resampling(self, ours: str, width: int) -> None:
        o = self.options
        if o.biggan:
            self._block(ours, width, width, resampled=True)
        elif o.convolve:
            self._layer(ours, f"{o.convolution}.")
        else:
            self._one({})

    def _input(self, ours: str, width: int) -> int:
        """Add the connection of the input to the features; the resulting width."""
        o = self.options
        if o.progressive_input == "input_skip":
            self._layer(f"{ours}.combine.convolution", "Conv_0.")
            return width * (2 if o.combine == "cat" else 1)
        if o.progressive_input == "residual":
            self._layer(f"{ours}.pyramid", f"{o.convolution}.")
        return width

    def _output(self, ours: str, step: int, width: int) -> None:
        """Add the connection of the features to the output."""
        o = self.options
        if o.progressive == "residual" and step > 0:
            self._layer(f"{ours}.pyramid", f"{o.convolution}.")
        elif o.progressive == "residual" and len(o.widths) == 1:
            leaves: dict[str, str | None] = {"weight": None, "bias": None}
            self._one(leaves, {"weight": (width,), "bias": (width,)})
            self._one(leaves, {"weight": (width, width, 3, 3), "bias": (width,)})
        elif o.progressive != "none":
            self._layer(f"{ours}.head_norm")
            self._layer(f"{ours}.head")
