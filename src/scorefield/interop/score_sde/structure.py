"""The part of a score_sde configuration that the weights determine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor

from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.configurations import configuration, configuration_names, value

# Keys that configurations of a ddpm have by default and that it ignores.
_UNREAD_BY_DDPM = ("model.embedding_type", "model.fir")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Structure:
    """The settings determined by the weights.

    Attributes:
        settings: Settings by key, such as ``model.nf``, in the units of the score_sde code.
        attention: The levels with attention, 0 for that of the whole image; ``None`` for a kind of
            network without.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    attention: tuple[int, ...] | None = None

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[str]:
        """Contradictions with a configuration, one clause each."""
        name = value(config, "model.name", self.settings.get("model.name"))
        for key, found in self.settings.items():
            said = value(config, key, None)
            if name == "ddpm" and key in _UNREAD_BY_DDPM:
                continue
            if key == "model.name" and said == "ncsnv2" and found.startswith("ncsnv2"):
                continue
            if said is not None and not _same(said, found):
                yield f"{key} is {said!r} in the configuration, {found!r} in the weights"
        said, side = value(config, "model.attn_resolutions", None), _side(config)
        if self.attention is None or said is None or side is None:
            return
        levels = range(len(self.settings["model.ch_mult"]))
        found = [side >> level for level in self.attention]
        if sorted(found) != sorted(side >> k for k in levels if side >> k in said):
            yield (
                f"model.attn_resolutions is {list(said)} in the configuration, {found} in the "
                "weights"
            )

    def resolutions(self, config: Mapping[str, Any]) -> list[int]:
        """The resolutions with attention, for images of the size in a configuration."""
        side = _side(config) or 0
        return [side >> level for level in self.attention or ()]

    def known(self) -> list[str]:
        """The published configurations that have this structure."""
        return [
            name for name in configuration_names() if not any(self.conflicts(configuration(name)))
        ]


def infer(state: Mapping[str, Tensor]) -> Structure:
    """Infer the structure of a network from the names, without ``module.``, and shapes of its
    weights in the score_sde code.

    Raises:
        InteropError: If they fit no network of that code.
    """
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if "begin_conv.weight" in shapes:
        found = _refinenet(shapes)
    elif any(name.startswith("all_modules.") for name in shapes):
        try:
            found = _unet(shapes)
        except (LookupError, StopIteration, ZeroDivisionError) as error:
            raise InteropError("the weights do not fit a network of score_sde") from error
    else:
        raise InteropError("the weights do not fit a network of score_sde")
    if "sigmas" in state:
        table = state["sigmas"].double()
        found.settings["model.num_scales"] = len(table)
        # The table may have been rounded to float32.
        found.settings["model.sigma_max"] = float(f"{float(table[0]):.6g}")
        found.settings["model.sigma_min"] = float(f"{float(table[-1]):.6g}")
    return found


def _refinenet(shapes: Shapes) -> Structure:
    nf, channels = shapes["begin_conv.weight"][:2]
    settings: dict[str, Any] = {"data.num_channels": channels, "model.nf": nf}
    if "normalizer.embed.weight" in shapes:
        settings["model.name"] = "ncsn"
        settings["model.num_scales"] = shapes["normalizer.embed.weight"][0]
        settings["model.normalization"] = "InstanceNorm++"
    else:
        deepest, deep = "res31.0.conv1.weight" in shapes, "res5.0.conv1.weight" in shapes
        size = 256 if deepest else 128 if deep else 64
        settings["model.name"] = f"ncsnv2_{size}"
        parts = {name for name in shapes if name.startswith("normalizer.")}
        settings["model.normalization"] = (
            "InstanceNorm++"
            if "normalizer.gamma" in parts
            else ("VarianceNorm" if parts else "InstanceNorm")
        )
    return Structure(settings)


@dataclass
class _Cursor:
    """A cursor over the modules of a network in order."""

    parts: dict[int, Shapes]
    place: int = 0

    @property
    def kind(self) -> str:
        part = self.parts.get(self.place)
        if part is None:
            return "nothing" if self.place < max(self.parts) else "end"
        if "NIN_3.W" in part:
            return "attention"
        if "GroupNorm_1.weight" in part:
            return "block"
        if "W" in part:
            return "frequencies"
        if "Conv2d_0.weight" in part:
            return "fir"
        if "Conv_0.weight" in part:
            return "combine" if part["Conv_0.weight"][-1] == 1 else "resample"
        return {1: "norm", 2: "linear", 4: "conv"}[len(part["weight"])]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.parts[self.place][name]

    def take(self, *kinds: str) -> bool:
        """Skip the module if it is of one of these kinds."""
        taken = self.kind in kinds
        self.place += taken
        return taken

    def resizing(self) -> bool:
        """Whether the module changes the size of the image: a layer of its own, or a block with
        a shortcut between equal numbers of channels.
        """
        if self.kind == "block" and "Conv_2.weight" in self.parts[self.place]:
            outputs, inputs = self.shape("Conv_0.weight")[:2]
            return outputs == inputs
        return self.kind in ("nothing", "resample", "fir")


def _unet(shapes: Shapes) -> Structure:
    parts_by_place: dict[int, Shapes] = {}
    for name, shape in shapes.items():
        if found := re.fullmatch(r"all_modules\.(\d+)\.(.+)", name):
            parts_by_place.setdefault(int(found[1]), {})[found[2]] = shape
    at = _Cursor(parts_by_place)
    everywhere = [_Cursor(parts_by_place, place) for place in range(max(parts_by_place) + 1)]
    blocks = sum("GroupNorm_1.weight" in part for part in at.parts.values())
    fourier = at.take("frequencies")
    conditional = at.kind == "linear" and at.take("linear") and at.take("linear")
    nf, channels = at.shape("weight")[:2]
    model: dict[str, Any] = {"nf": nf, "conditional": conditional}
    if conditional:
        model["embedding_type"] = "fourier" if fourier else "positional"
    at.take("conv")

    widths: list[int] = []
    attention: list[int] = []
    # Where the first level ends is seen in the weights, unless it is the only one.
    number = 0 if any(one.resizing() for one in everywhere) else (blocks - 3) // 2
    combined = boundary = ""
    for level in count():
        done = 0
        while at.kind == "block" and not at.resizing() and (not number or done < number):
            width = at.shape("Conv_0.weight")[0]
            at.take("block")
            done += 1
            if at.take("attention") and level not in attention:
                attention.append(level)
        number = number or done
        widths.append(width)
        if not at.resizing():
            break
        boundary = at.kind
        at.place += 1
        if at.kind == "combine":
            combined, inputs = "input_skip", at.shape("Conv_0.weight")[0]
            at.take("combine")
            joined = at.shape("Conv_0.weight")[1]
            model["progressive_combine"] = "cat" if joined == 2 * inputs else "sum"
        elif at.take("fir", "resample"):
            combined = "residual"

    model["num_res_blocks"] = number
    model["ch_mult"] = [width // nf for width in widths]
    at.take("block"), at.take("attention"), at.take("block")
    for _ in range(number + 1):
        at.take("block")
    at.take("attention")
    output = "none"
    if at.kind == "norm" and len(widths) > 1:
        at.take("norm")
        output = "output_skip" if at.shape("weight")[0] == channels else "residual"

    parts = at.parts.values()
    kind = "biggan" if any("Conv_2.weight" in part for part in parts) else "ddpm"
    if len(widths) > 1 and kind == "ddpm":
        model["resamp_with_conv"] = boundary != "nothing"
    if any("Conv2d_0.weight" in part for part in parts):
        model["fir"] = True
    elif any(one.kind == "resample" for one in everywhere):
        model["fir"] = False
    if fourier or kind == "biggan" or combined or output != "none" or model.get("fir"):
        model["name"] = "ncsnpp"
        model["resblock_type"] = kind
        model["progressive"] = output
        model["progressive_input"] = combined or "none"
    settings = {"data.num_channels": channels, **{f"model.{k}": v for k, v in model.items()}}
    return Structure(settings, tuple(attention))


def _side(config: Mapping[str, Any]) -> int | None:
    side = value(config, "data.image_size", None)
    return None if side is None else int(side)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(abs(a - b) <= 1e-4 * abs(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return str(a).lower() == str(b).lower()
