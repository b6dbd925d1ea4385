r"""Models of diffusers.

A folder that ``DDPMPipeline.save_pretrained`` wrote holds a network and a scheduler; diffusers
itself builds both, and the configuration of the scheduler states the convention. :math:`N` steps
have the betas of the scheduler, whatever their schedule, and the label of a step is its index. A
scheduler of flow matching has straight paths, and a label of 1000 times :math:`\sigma`.

Sampling by the scheduler clips the denoised state where ``clip_sample`` or ``thresholding`` is set,
which is its default. The field here is that of the network; :class:`~.ClippedField` is the other.

References:
    Diffusers: state-of-the-art diffusion models (von Platen et al., 2022), version 0.42.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scorefield.fields.labels import TimeLabel
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.files import DOCUMENT, read_file
from scorefield.interop.errors import InteropError
from scorefield.networks.network import Network
from scorefield.sde.interpolant import RectifiedFlow
from scorefield.sde.steps import DiscreteVP

INDEX = "model_index.json"
"""The file that makes a folder one of diffusers."""

_PREDICTS = {"epsilon": "noise", "v_prediction": "v", "sample": "denoiser"}
_NETWORKS = ("UNet2DModel",)
_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""Those of networks that were trained on the steps of a table."""
_FLOW = "FlowMatchEulerDiscreteScheduler"
_SAMPLING = (
    "scheduler",
    "num_train_timesteps",
    "beta_schedule",
    "prediction_type",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "timestep_spacing",
    "rescale_betas_zero_snr",
)


def load(folder: str | Path) -> PreconditionedField:
    """The field of the network in a folder of diffusers, in evaluation mode.

    Arguments:
        folder: What ``save_pretrained`` of a pipeline wrote, with the folders ``unet`` and
            ``scheduler``.

    Raises:
        InteropError: If diffusers is not installed, the folder is not one of its pipelines or
            incomplete, or the network or the scheduler is of another kind.
    """
    folder = Path(folder)
    # Weights that are pickles are refused; of weights that are missing diffusers only warns.
    settings = {"use_safetensors": True, "output_loading_info": True}
    network, found = _part(folder, "unet", _NETWORKS, **settings)
    if missing := sorted(found["missing_keys"]):
        raise InteropError(f"{folder / 'unet'} lacks the weights {', '.join(missing[:4])}")
    return field_of(network.eval(), _part(folder, "scheduler", (*_SCHEDULERS, _FLOW)))


def sampling(folder: Path) -> list[tuple[str, str]]:
    """What the scheduler in a folder of diffusers does when it samples, by name; the field of its
    network is neither clipped nor thresholded.
    """
    scheduler = _part(folder, "scheduler", (*_SCHEDULERS, _FLOW))
    found = {"scheduler": type(scheduler).__name__, **scheduler.config}
    return [(key.replace("_", " "), str(found[key])) for key in _SAMPLING if key in found]


def field_of(network: Any, scheduler: Any) -> PreconditionedField:
    """The field of a network of diffusers in the convention of a scheduler, both loaded.

    Raises:
        InteropError: If the scheduler has a prediction that is none of the known ones, or the
            network has no size of images.
    """
    settings, shape = scheduler.config, network.config
    convention: dict[str, Any]
    if type(scheduler).__name__ == _FLOW:
        label = TimeLabel(settings.num_train_timesteps)
        convention = {"predicts": "velocity", "time": label, "sde": RectifiedFlow()}
    elif settings.get("timestep_type", "discrete") != "discrete":
        raise InteropError("timestep_type is not 'discrete': labels are not the numbers of steps")
    elif settings.prediction_type in _PREDICTS:
        sde = DiscreteVP(betas=scheduler.betas)
        predicts = _PREDICTS[settings.prediction_type]
        convention = {"predicts": predicts, "time": f"index:{sde.levels}", "sde": sde}
    else:
        raise InteropError(
            f"prediction_type is {settings.prediction_type!r}, it must be one of "
            f"{', '.join(map(repr, _PREDICTS))}"
        )
    side = shape.sample_size
    if side is None:
        raise InteropError("the network has no sample_size, the side of its images: give it one")
    sides = (side, side) if isinstance(side, int) else tuple(side)
    return wrap(
        Sampled(network),
        shape=(shape.in_channels, *sides),
        **convention,
        classes=shape.num_class_embeds,
        learned_variance=shape.out_channels == 2 * shape.in_channels,
    )


class Sampled(Network):
    """A network of diffusers, called as a function that returns a tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, x: Tensor, index: Tensor, classes: Tensor | None = None) -> Tensor:
        output: Tensor = self.network(x, index, class_labels=classes, return_dict=False)[0]
        return output


def _part(folder: Path, name: str, kinds: tuple[str, ...], **settings: bool) -> Any:
    """A part of a pipeline, of one of some kinds, as diffusers loads it; nothing is downloaded."""
    try:
        import diffusers
    except ImportError as error:
        raise InteropError(
            f"{folder} is a folder of diffusers, which is not installed: pip install diffusers"
        ) from error
    file = folder / INDEX
    if not file.is_file():
        raise InteropError(f"{folder} has no {INDEX}: save a pipeline with save_pretrained")
    try:
        library, kind = json.loads(read_file(file, DOCUMENT)).get(name) or (None, None)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InteropError(f"{file} does not describe a pipeline: {error}") from error
    if library != "diffusers" or kind not in kinds:
        raise InteropError(f"{file}: {name} is {kind}, it must be one of {', '.join(kinds)}")
    try:
        found = getattr(diffusers, kind)
        return found.from_pretrained(folder / name, local_files_only=True, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise InteropError(f"{folder / name} cannot be read: {error}") from error
