"""Fields as folders of diffusers, where a network has exactly the layers of a ``UNet2DModel``.

Of the networks here that is :class:`~.DDPM`, the network of denoising diffusion. On the way up it
has attention after the last block of a level, a ``UNet2DModel`` after each: the others are written
with weights of zero, which add nothing.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.labels import TimeLabel
from scorefield.fields.parametrization import DenoiserPrediction, NoisePrediction, VPrediction
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop.errors import InteropError
from scorefield.networks.ncsnpp import DDPM
from scorefield.sde.steps import DiscreteVP

_PREDICTIONS = {
    NoisePrediction: "epsilon",
    VPrediction: "v_prediction",
    DenoiserPrediction: "sample",
}
_NEEDED = {"conditional": True, "resample_with_conv": True, "activation": "swish",
           "scale_by_sigma": False, "classes": None}  # fmt: skip
"""The arguments of a network that has these layers."""
_NAMES = (
    (r"^first\.", "conv_in."),
    (r"^last_norm\.", "conv_norm_out."),
    (r"^last\.", "conv_out."),
    (r"^conditioning\.first\.", "time_embedding.linear_1."),
    (r"^conditioning\.second\.", "time_embedding.linear_2."),
    (r"^middle\.1\.", "mid_block.attentions.0."),
    (r"^middle\.0\.", "mid_block.resnets.0."),
    (r"^middle\.2\.", "mid_block.resnets.1."),
    (r"^(down|up)\.(\d+)\.blocks\.", r"\1_blocks.\2.resnets."),
    (r"^down\.(\d+)\.attention\.", r"down_blocks.\1.attentions."),
    (r"^down\.(\d+)\.shrink\.", r"down_blocks.\1.downsamplers.0.conv."),
    (r"^up\.(\d+)\.grow\.", r"up_blocks.\1.upsamplers.0.conv."),
    (r"\.first_norm\.", ".norm1."),
    (r"\.first\.", ".conv1."),
    (r"\.level\.", ".time_emb_proj."),
    (r"\.second_norm\.", ".norm2."),
    (r"\.second\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.norm\.", ".group_norm."),
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
)
"""The names of layers here and there, applied in this order."""


def save_pipeline(field: ScoreField, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a field as the folder of a ``DDPMPipeline`` of diffusers: a ``UNet2DModel`` with the
    same output, and a scheduler with the table of the process, without clipping.

    Arguments:
        field: The field of a :class:`~.DDPM`, which predicts noise, data or v, of
            :class:`~.DiscreteVP` with the indices of its steps as labels.
        folder: The folder.
        overwrite: Whether to replace a pipeline that is there.

    Raises:
        InteropError: If diffusers is not installed, the field has another structure, or there is a
            pipeline in the folder already.
    """
    check_field(field)
    folder = Path(folder)
    if (folder / "model_index.json").exists() and not overwrite:
        raise InteropError(f"{folder} has a pipeline already: overwrite it, or give another folder")
    if why := _obstacle(field):
        raise InteropError(f"no UNet2DModel of diffusers is this field: {why}")
    try:
        diffusers: Any = import_module("diffusers")
    except ImportError as error:
        raise InteropError("diffusers is not installed: pip install diffusers") from error
    assert isinstance(field, PreconditionedField)
    assert isinstance(field.sde, DiscreteVP)
    network = diffusers.UNet2DModel(**_settings(field.backbone))
    network.load_state_dict(_state(field.backbone, network.state_dict()))
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=field.sde.levels,
        trained_betas=field.sde.table.tolist(),
        prediction_type=_PREDICTIONS[type(field.parametrization)],
        clip_sample=False,
    )
    diffusers.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(folder)
    return folder


def _obstacle(field: ScoreField) -> str | None:
    """What of a field is not that of a pipeline."""
    if type(field) is not PreconditionedField or not isinstance(field.backbone, DDPM):
        return "its network is not DDPM, the only one with the same layers"
    given = field.backbone.arguments
    for name, value in _NEEDED.items():
        if given.get(name, value) != value:
            return f"its network has {name}={given[name]!r}, not {value!r}"
    sde = field.sde
    prediction: Any = field.parametrization
    if not isinstance(sde, DiscreteVP) or sde.prior_mean != 0:
        return "its process is not DiscreteVP, with a table of steps and noise of mean 0"
    if type(prediction) not in _PREDICTIONS:
        return f"it predicts by {type(prediction).__name__}, not noise, data or v"
    if prediction.label != TimeLabel(sde.levels - 1):
        return f"its label is {prediction.label}, not the index of a step"
    return None


def _settings(network: Any) -> dict[str, Any]:
    """The configuration of the same network of diffusers."""
    given = network.arguments
    colors, *sides = network.event_shape
    multipliers = given.get("multipliers", (1, 2, 2, 2))
    attended = [len(level.attention) > 0 for level in network.down]
    channels = network.first.out_channels
    return {
        "sample_size": sides[0] if sides[0] == sides[1] else tuple(sides),
        "in_channels": colors,
        "out_channels": colors,
        "center_input_sample": not network.centered,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attended],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in attended[::-1]],
        "block_out_channels": [channels * m for m in multipliers],
        "layers_per_block": len(network.down[0].blocks),
        "downsample_padding": 0,
        "dropout": network.down[0].plan.style.dropout,
        "attention_head_dim": None,
        "norm_num_groups": network.groups,
        "norm_eps": 1e-6,
    }


def _state(network: Any, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network by the names of ``like``."""
    last = len(network.up[0].blocks) - 1
    names = ((r"^up\.(\d+)\.attention\.", rf"up_blocks.\1.attentions.{last}."), *_NAMES)
    state = {}
    for name, tensor in network.state_dict().items():
        for pattern, there in names:
            name = re.sub(pattern, there, name)
        state[name] = tensor
    for name in like.keys() - state.keys():
        if not re.match(r"up_blocks\.\d+\.attentions\.", name):
            raise InteropError(f"the network has no layer for {name}")
        state[name] = torch.zeros_like(like[name]) if ".to_out." in name else like[name]
    return state
