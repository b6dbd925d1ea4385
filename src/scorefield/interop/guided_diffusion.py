r"""Models of guided-diffusion (ADM), and with its networks, of improved DDPM.

The network predicts the noise :math:`\varepsilon` (with ``predict_xstart`` the data) of the
``diffusion_steps`` of a table ``linear`` or ``cosine``, and receives the index of the step, with
``rescale_timesteps`` times :math:`1000 / N`. With ``learn_sigma``, the first half of its channels
is the prediction. Respaced steps are a choice of the sampler: they have the noise levels and the
labels of the steps of the table, and the same field.

Published files are plain state dicts; what they lack is the configuration, the flags in the README
of that code.

References:
    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), section 3; published
    code, ``guided_diffusion/{unet,script_util,gaussian_diffusion}.py`` at commit 22e0df8.

    Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.dropout import Dropout
from scorefield.errors import UserError
from scorefield.fields.labels import TimeLabel
from scorefield.fields.parametrization import DenoiserPrediction, NoisePrediction
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop.edm.blocks import Change
from scorefield.interop.errors import InteropError
from scorefield.interop.folder import Backbone, arguments, filled, loaded, split_class
from scorefield.networks.blocks import Normalization
from scorefield.sde.steps import DiscreteVP

CLASS = "UNetModel"
"""The published class of the network."""

RECIPE = (
    'where the code that wrote it is installed, python -c "import sys, torch; net = '
    "torch.load(sys.argv[1], map_location='cpu', weights_only=False); torch.save("
    "net.state_dict(), 'model.pt')\" FILE writes the state dict that is read, beside a model.json "
    "with the class UNetModel and the flags of its training"
)
"""How to write the folder of a model, as a clause."""

_MULTIPLIERS = {64: "1,2,3,4", 128: "1,1,2,3,4", 256: "1,1,2,2,4,4", 512: "0.5,1,1,2,2,4,4"}
"""The multipliers of the published code by the side of an image."""


def load(folder: str | Path) -> PreconditionedField:
    """The field of a model of guided-diffusion, in evaluation mode.

    Arguments:
        folder: A folder with ``model.pt`` or ``model.safetensors``, the published state dict, and
            ``model.json`` with ``"class": "UNetModel"`` and the flags of its training.

    Raises:
        InteropError: If it is no such folder, a file in it has code or is damaged, or the
            configuration and the weights do not fit.
    """
    return loaded(Path(folder), RECIPE, field_of)


def field_of(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> PreconditionedField:
    """The field of a configuration and a state dict, in evaluation mode.

    A network with classes needs them: it was trained on points of known classes only.

    Arguments:
        config: The published flags (those of ``model_and_diffusion_defaults``), with their
            defaults where they are missing, and ``UNetModel`` under ``class``.
        state: The published state dict.

    Raises:
        InteropError: If a flag is unknown or of another type, or a weight is missing, surplus or of
            another shape.
        ValueError: If a value does not fit.
    """
    _, given = split_class(config, (CLASS,))
    flags = Flags(**arguments(CLASS, Flags, given))
    classes = None
    if flags.class_cond:
        if "label_emb.weight" not in state:
            raise InteropError("the state dict lacks label_emb.weight, and class_cond is true")
        # The published code has 1000, a constant of its source.
        classes = len(state["label_emb.weight"])
    network = filled(lambda: UNetModel(flags, classes), state)
    sde = DiscreteVP(betas=flags.noise_schedule, levels=flags.diffusion_steps)
    scale = (sde.levels - 1) * (1000 / sde.levels if flags.rescale_timesteps else 1)
    kind = DenoiserPrediction if flags.predict_xstart else NoisePrediction
    what = "the data x₀" if flags.predict_xstart else "the noise ε"
    half = ", in the first half of its channels" if flags.learn_sigma else ""
    network.convention = (
        f"UNetModel of guided-diffusion: F(α x₀ + σ ε, {scale:g} t) is {what} at t = i / "
        f"{sde.levels - 1}, steps with {flags.noise_schedule} betas{half}; {network.words()}"
    )
    return PreconditionedField(network, sde, parametrization=kind(TimeLabel(scale))).eval()


@dataclass(frozen=True)
class Flags:
    """The published flags, which make the network and its process; some are of no effect here."""

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: str = "16,8"
    channel_mult: str = ""
    dropout: float | int = 0.0
    class_cond: bool = False
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_fp16: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: int = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    timestep_respacing: str | Sequence[int] = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    rescale_learned_sigmas: bool = False

    @property
    def widths(self) -> list[int]:
        """The width of each level."""
        text = self.channel_mult or _MULTIPLIERS.get(self.image_size, "")
        if not text:
            raise InteropError(f"images of side {self.image_size} need channel_mult, as in '1,2,2'")
        return [int(m * self.num_channels) for m in _numbers("channel_mult", text)]

    @property
    def attended(self) -> list[int]:
        """The sides of images at which pixels attend to each other."""
        return [int(side) for side in _numbers("attention_resolutions", self.attention_resolutions)]


class UNetModel(Backbone):
    """The network of guided-diffusion, with classes or without."""

    def __init__(self, flags: Flags, classes: int | None) -> None:
        side, width, widths = flags.image_size, flags.num_channels, flags.widths
        super().__init__((3, side, side), len(widths), flags.num_res_blocks, classes)
        self.waves, condition = width, 4 * width
        self.time_embed = nn.Sequential(
            nn.Linear(width, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.label_emb = None if classes is None else nn.Embedding(classes, condition)
        # The published code compares how often a side was halved, rounded down.
        halvings = [side // attended for attended in flags.attended]
        up_heads = flags.num_heads if flags.num_heads_upsample == -1 else flags.num_heads_upsample

        def layers(inputs: int, outputs: int, level: int, heads: int) -> list[nn.Module]:
            made: list[nn.Module] = [residual(inputs, outputs)]
            return made + ([attention(outputs, heads)] if 2**level in halvings else [])

        def residual(inputs: int, outputs: int, change: Change = None) -> Residual:
            shifts = flags.use_scale_shift_norm
            return Residual(inputs, outputs, condition, float(flags.dropout), shifts, change)

        def attention(channels: int, heads: int) -> Attention:
            if (size := flags.num_head_channels) != -1:
                if channels % size:
                    raise UserError(f"{channels} channels are no heads of {size} channels")
                heads = channels // size
            return Attention(channels, heads, flags.use_new_attention_order)

        def changed(channels: int, change: Change) -> nn.Module:
            if flags.resblock_updown:
                return residual(channels, channels, change)
            if change == "down":
                return _named(op=nn.Conv2d(channels, channels, 3, stride=2, padding=1))
            same = nn.Conv2d(channels, channels, 3, padding=1)
            return _named(up=nn.Upsample(scale_factor=2), conv=same)

        inputs, last = widths[0], len(widths) - 1
        self.input_blocks = nn.ModuleList([Steps([nn.Conv2d(3, inputs, 3, padding=1)])])
        skips = [inputs]
        for level, outputs in enumerate(widths):
            for _ in range(flags.num_res_blocks):
                self.input_blocks.append(Steps(layers(inputs, outputs, level, flags.num_heads)))
                inputs = outputs
                skips.append(inputs)
            if level != last:
                self.input_blocks.append(Steps([changed(inputs, "down")]))
                skips.append(inputs)
        middle = [residual(inputs, inputs), attention(inputs, flags.num_heads)]
        self.middle_block = Steps([*middle, residual(inputs, inputs)])
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for k in range(flags.num_res_blocks + 1):
                made = layers(inputs + skips.pop(), widths[level], level, up_heads)
                inputs = widths[level]
                if level and k == flags.num_res_blocks:
                    made.append(changed(inputs, "up"))
                self.output_blocks.append(Steps(made))
        outputs = 6 if flags.learn_sigma else 3
        self.out = nn.Sequential(
            Normalization(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )

    def forward(
        self,
        x: Num[Tensor, "..."],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        half = self.waves // 2
        place = torch.arange(half, dtype=label.dtype, device=label.device)
        phase = label[:, None] * torch.exp(-math.log(10_000) * place / half)
        condition = self.time_embed(torch.cat((phase.cos(), phase.sin()), dim=1))
        if self.label_emb is not None:
            condition = condition + self.label_emb(classes)
        skips: list[Tensor] = []
        for steps in self.input_blocks:
            skips.append(x := steps(x, condition))
        x = self.middle_block(x, condition)
        for steps in self.output_blocks:
            x = steps(torch.cat((x, skips.pop()), dim=1), condition)
        # What follows the prediction is a learned variance.
        return self.out(x)[:, :3]


class Steps(nn.ModuleList):
    """Layers after each other, of which residual blocks receive the condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, condition) if isinstance(layer, Residual) else layer(x)
        return x


class Residual(nn.Module):
    """Two convolutions with the condition between them, and a shortcut."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        dropout: float,
        shifts: bool,
        change: Change = None,
    ) -> None:
        super().__init__()
        self.shifts, self.change = shifts, change
        self.in_layers = nn.Sequential(
            Normalization(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(condition, 2 * outputs if shifts else outputs)
        )
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(
            Normalization(32, outputs), nn.SiLU(), Dropout(dropout), last
        )
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        norm, act, convolution = self.in_layers
        h = act(norm(x))
        if self.change == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        elif self.change == "up":
            x, h = _doubled(x), _doubled(h)
        h = convolution(h)
        level = self.emb_layers(condition)[:, :, None, None]
        norm, act, dropout, convolution = self.out_layers
        if self.shifts:
            scale, shift = level.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + level)
        return self.skip_connection(x) + convolution(dropout(act(h)))


class Attention(nn.Module):
    """Self-attention of pixels, added to the input.

    The channels of a projection are those of heads, each with a query, a key and a value; or, in
    the new order, those of all queries, all keys and all values, each with its heads.
    """

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        if channels % heads:
            raise UserError(f"{channels} channels cannot be shared out to {heads} heads")
        self.heads, self.new_order = heads, new_order
        self.norm = Normalization(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)
        parts = self.qkv(self.norm(rows))
        # -> (batch, head, channel, pixel), of each of the three
        if self.new_order:
            query, key, value = parts.unflatten(1, (3, self.heads, -1)).unbind(1)
        else:
            query, key, value = parts.unflatten(1, (self.heads, 3, -1)).unbind(2)
        weight = (query.mT @ key / math.sqrt(key.shape[2])).softmax(dim=3)
        h = self.proj_out((value @ weight.mT).flatten(1, 2))
        return (rows + h).unflatten(2, x.shape[2:])


def _named(**layers: nn.Module) -> nn.Sequential:
    """Layers after each other, by the names of their weights."""
    return nn.Sequential(OrderedDict(layers))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InteropError(f"{name} is {text!r}, it must be numbers, as in '1,2,2'") from None
