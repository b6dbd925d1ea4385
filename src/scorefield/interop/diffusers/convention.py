r"""A network of diffusers in the convention of its scheduler.

The configuration of the scheduler states the convention:

* The steps of a table have its betas, whatever their schedule, and the label of a step is its
  index.
* The schedulers of EDM have :math:`c_{noise} = \frac14 \ln\sigma` as the label and a
  :math:`\sigma_d` of their own; with ``v_prediction``, the network's output has the opposite sign.
* Flow matching has straight paths, and the label :math:`N\sigma` for :math:`N` steps. A *shift*
  moves the steps, not the field: the least of them, where the process begins, is
  :math:`\sigma = s u / (1 + (s - 1) u)` with :math:`u = 1 / N`.
* ``ScoreSdeVeScheduler`` has a network that receives :math:`\sigma` and predicts the score, for
  data in :math:`[0, 1]`.

Sampling by the scheduler clips the denoised state where ``clip_sample`` or ``thresholding`` is set,
the first of which is a default. The field here is that of the network; :class:`~.ClippedField` is
the other.

References:
    Diffusers: state-of-the-art diffusion models (von Platen et al., 2022), version 0.42.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scorefield.fields.labels import TimeLabel
from scorefield.fields.parametrization import EDMScaling
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter
from scorefield.interop.errors import InteropError
from scorefield.sde.exploding import EDM, VE
from scorefield.sde.interpolant import RectifiedFlow
from scorefield.sde.steps import DiscreteVP

NETWORKS = ("UNet2DModel", "DiTTransformer2DModel")
VE_SCHEDULER = "ScoreSdeVeScheduler"

_PREDICTS = {"epsilon": "noise", "v_prediction": "v", "sample": "denoiser"}
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_TABLE = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
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
SCHEDULERS = (*_TABLE, *_EDM, *_FLOW, VE_SCHEDULER)


def field_of(network: Any, scheduler: Any) -> PreconditionedField:
    """The field of a network of diffusers in the convention of a scheduler, both loaded.

    Raises:
        InteropError: If the scheduler or its prediction is of another kind, or the network has no
            size of images, is not in evaluation mode, or receives what no field gives it.
    """
    kind, settings = type(scheduler).__name__, network.config
    if kind not in SCHEDULERS:
        raise InteropError(f"the scheduler is {kind}, it must be one of {', '.join(SCHEDULERS)}")
    side = settings.sample_size
    if side is None:
        raise InteropError("the network has no sample_size, the side of its images: give it one")
    sides = (side, side) if isinstance(side, int) else tuple(side)
    _check_labels(network, kind)
    convention, words = _convention(scheduler, kind)
    of_latents = "num_embeds_ada_norm" in settings
    classes = settings.num_embeds_ada_norm if of_latents else settings.num_class_embeds
    # Of EDM, v is the negative of what EDM's own scaling takes.
    v = kind in _EDM and scheduler.config.prediction_type == "v_prediction"
    return wrap(
        DiffusersNetwork(network, words, -1 if v else 1),
        shape=(settings.in_channels, *sides),
        classes=classes,
        unlabelled=of_latents,
        learned_variance=settings.out_channels == 2 * settings.in_channels,
        **convention,
    )


class DiffusersNetwork(Adapter):
    """A network of diffusers, called as a function that returns a tensor, times a sign."""

    def __init__(self, network: nn.Module, convention: str, sign: int = 1) -> None:
        super().__init__(network, convention)
        self.sign = sign

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        known = {} if classes is None else {"class_labels": classes}
        output: Tensor = self.network(x, label, return_dict=False, **known)[0]
        return output if self.sign > 0 else -output


def _convention(scheduler: Any, kind: str) -> tuple[dict[str, Any], str]:
    """The convention as arguments of :func:`~.wrap`, and in words."""
    settings = scheduler.config
    given = settings.get("prediction_type")
    if kind == VE_SCHEDULER:
        least, most = float(settings.sigma_min), float(settings.sigma_max)
        sde = VE(least, most, t_min=float(settings.sampling_eps))
        words = f"{kind}: receives sigma from {least:g} to {most:g}, predicts the score"
        return {"predicts": "score", "time": "sigma", "sde": sde}, words
    if kind in _FLOW or given == "flow_prediction":
        return _flow(settings, kind)
    if settings.get("use_flow_sigmas"):
        raise InteropError(
            f"prediction_type is {given!r}, with use_flow_sigmas it must be 'flow_prediction'"
        )
    known = list(_PREDICTS)[: 2 if kind in _EDM else None]
    if given not in known:
        raise InteropError(
            f"prediction_type is {given!r}, it must be one of {', '.join(map(repr, known))}"
        )
    if kind in _EDM:
        scale = float(settings.sigma_data)
        ends = float(settings.sigma_min), float(settings.sigma_max)
        words = f"{kind}: receives ln(sigma) / 4, sigma_data {scale:g}, predicts {given}"
        return {"predicts": EDMScaling(scale), "sde": EDM(*ends)}, words
    if settings.get("timestep_type", "discrete") != "discrete":
        raise InteropError("timestep_type is not 'discrete': labels are not the numbers of steps")
    table = DiscreteVP(betas=scheduler.betas)
    steps = f"index:{table.levels}"
    words = f"{kind}: receives the index of one of {table.levels} steps, predicts {given}"
    return {"predicts": _PREDICTS[given], "time": steps, "sde": table}, words


def _flow(settings: Any, kind: str) -> tuple[dict[str, Any], str]:
    if settings.get("invert_sigmas"):
        raise InteropError("invert_sigmas is set: such a network counts the time from the noise")
    if kind not in _FLOW and not settings.get("use_flow_sigmas"):
        raise InteropError("prediction_type is 'flow_prediction', which needs use_flow_sigmas")
    steps = settings.num_train_timesteps
    shift = 1.0
    if not settings.get("use_dynamic_shifting"):
        shift = settings.get("shift", settings.get("flow_shift", 1.0))
    first = float(shift / (steps + shift - 1))
    words = (
        f"{kind}: receives {steps} sigma, predicts the velocity; its steps, with shift {shift:g}, "
        f"begin at sigma {first:.4g}"
    )
    label = TimeLabel(steps)
    return {"predicts": "velocity", "time": label, "sde": RectifiedFlow(t_min=first)}, words


def _check_labels(network: Any, kind: str) -> None:
    """Raises :class:`InteropError` for a network whose labels of times or classes no field has."""
    settings = network.config
    embedding = settings.get("time_embedding_type")
    if embedding == "learned":
        raise InteropError(
            "time_embedding_type is 'learned', a table: such a network knows its steps and no time "
            "between two"
        )
    if embedding == "fourier" and kind not in (VE_SCHEDULER, *_FLOW):
        raise InteropError(
            "time_embedding_type is 'fourier', of a network that divides by its label: it receives "
            f"sigma, from {VE_SCHEDULER}, not the labels of {kind}"
        )
    if settings.get("class_embed_type") is not None:
        raise InteropError(
            f"class_embed_type is {settings.class_embed_type!r}: classes are not numbers from 0"
        )
    if network.training and "num_embeds_ada_norm" in settings:
        raise InteropError(
            "the network is in training mode, where it drops classes at random: call its eval()"
        )
