"""Checkpoints of the score_sde code as fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from scorefield.fields.base import ScoreField
from scorefield.fields.labels import IndexLabel, SigmaLabel, TimeLabel
from scorefield.fields.parametrization import NoisePrediction, Parametrization, ScorePrediction
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.build import build
from scorefield.interop.score_sde.checkpoints import read_checkpoint
from scorefield.interop.score_sde.configurations import Config, configuration, merged, value
from scorefield.interop.score_sde.structure import Structure, infer
from scorefield.sde.base import SDE
from scorefield.sde.exploding import VE
from scorefield.sde.preserving import VP, SubVP
from scorefield.sde.steps import DiscreteVP

_PROCESSES = ("vesde", "vpsde", "subvpsde")


def load(
    path: Path | str,
    config: Mapping[str, Any] | str | None = None,
    weights: Literal["ema", "raw"] = "ema",
) -> ScoreField:
    """The field of a checkpoint.

    The configuration may omit what the weights determine: see
    :class:`~.Structure`.

    Arguments:
        path: The file of the checkpoint.
        config: A configuration in the keys of the score_sde code, or the name of a published
            one, such as ``ve/cifar10_ncsnpp_continuous``.
        weights: The averaged weights, or those of the last step.

    Raises:
        InteropError: If the file cannot be used, or the configuration contradicts the weights or
            is incomplete; the message lists what is missing.
        ValueError: If a value of the configuration does not fit.
    """
    if weights not in ("ema", "raw"):
        raise InteropError(f"weights must be 'ema' or 'raw', got {weights!r}")
    checkpoint = read_checkpoint(path)
    state = checkpoint.averaged if weights == "ema" else checkpoint.state
    given = configuration(config) if isinstance(config, str) else config or {}
    complete = _completed(given, infer(state))
    return field_of(build(complete, state), complete).eval()


def field_of(backbone: nn.Module, config: Mapping[str, Any]) -> PreconditionedField:
    """The field of a network of :func:`~scorefield.interop.score_sde.build.build` and its
    configuration.
    """
    sde, parametrization = process(config)
    return PreconditionedField(backbone, sde, parametrization=parametrization)


def process(config: Mapping[str, Any]) -> tuple[SDE, Parametrization]:
    """The process of a configuration, and the parametrisation of its networks.

    Raises:
        InteropError: If the configuration is incomplete, or there is no such process.
    """
    kind = str(value(config, "training.sde")).lower()
    if kind not in _PROCESSES:
        raise InteropError(f"training.sde must be one of {', '.join(_PROCESSES)}, got {kind!r}")
    continuous = kind == "subvpsde" or bool(value(config, "training.continuous"))
    if kind == "vesde":
        sigma_min, sigma_max = (float(value(config, f"model.sigma_{m}")) for m in ("min", "max"))
        label = SigmaLabel() if continuous else IndexLabel(int(value(config, "model.num_scales")))
        return VE(sigma_min, sigma_max, t_min=1e-5), ScorePrediction(label)
    beta_min, beta_max = (float(value(config, f"model.beta_{m}")) for m in ("min", "max"))
    sde: SDE
    if continuous:
        sde = (SubVP if kind == "subvpsde" else VP)(beta_min, beta_max)
        return sde, NoisePrediction(TimeLabel(999.0))
    levels = int(value(config, "model.num_scales"))
    sde = DiscreteVP(beta_min, beta_max, levels=levels)
    return sde, NoisePrediction(TimeLabel(float(levels - 1)))


def _completed(given: Mapping[str, Any], found: Structure) -> Config:
    """A configuration completed from the weights, if the two agree and nothing is missing."""
    conflicts = list(found.conflicts(given))
    if conflicts:
        raise InteropError("; ".join(conflicts))
    complete: Config = merged({}, given)
    for key, setting in found.settings.items():
        section, name = key.split(".")
        if value(complete, key, None) is None:
            complete = merged(complete, {section: {name: setting}})
    missing = [key for key in _needed(complete) if value(complete, key, None) is None]
    if missing:
        known = found.known()
        fitting = f"; published configurations that fit: {', '.join(known)}" if known else ""
        raise InteropError(
            f"the weights do not show {', '.join(missing)}: the configuration must say it{fitting}"
        )
    if found.attention is not None and value(complete, "model.attn_resolutions", None) is None:
        resolutions = found.resolutions(complete)
        complete = merged(complete, {"model": {"attn_resolutions": resolutions}})
    return complete


def _needed(config: Mapping[str, Any]) -> list[str]:
    """The keys that the field depends on and that the weights may not determine."""
    name, kind = (value(config, key, None) for key in ("model.name", "training.sde"))
    keys = ["model.name", "data.image_size", "data.centered", "training.sde", "model.nonlinearity"]
    if kind != "subvpsde":
        keys.append("training.continuous")
    if kind == "vesde":
        keys += ["model.sigma_min", "model.sigma_max", "model.num_scales"]
    elif kind is not None:
        keys += ["model.beta_min", "model.beta_max"]
    if name in ("ncsnpp", "ddpm", None):
        keys += ["model.scale_by_sigma"]
    if name == "ncsnpp":
        keys += ["model.skip_rescale", "model.fir"]
        if value(config, "model.fir", False):
            keys += ["model.fir_kernel"]
        if not value(config, "model.conditional", True):
            keys += ["model.embedding_type"]
    return keys
