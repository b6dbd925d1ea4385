"""The field: what its networks predict, and how they make a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from scorefield.config.base import Positive, Section, default_of
from scorefield.config.data import Data
from scorefield.config.network import Network, build_network
from scorefield.config.sde import Levels, Process, TableProcess, VEProcess, build_sde
from scorefield.errors import ConfigError, UserError, section_of

if TYPE_CHECKING:
    from scorefield.data import DataSource
    from scorefield.fields import Label, Parametrization, ScoreField

_STEPS = 1000


class Prediction(Section):
    """What the networks of a field predict, and how the noise level is given to them.

    ``label: time`` spreads the times of a process over 0 to 999, or over the steps of
    ``discrete_vp``; ``unit_time`` leaves them as they are. ``levels`` is the length of the table
    of noise levels that the networks know, for the label ``index``. ``sigma_data: null`` is the
    standard deviation of the data itself.
    """

    kind: str
    parametrization: Literal["edm", "noise", "score"] = "edm"
    label: Literal["lognoise", "sigma", "time", "unit_time", "index"] = "lognoise"
    levels: Levels | None = None
    sigma_data: Positive | None = None

    @model_validator(mode="after")
    def _labelled(self) -> Prediction:
        if self.label == "index" and self.levels is None:
            raise UserError("field.label 'index' needs field.levels, the length of the table")
        if self.label != "index" and self.levels is not None:
            raise UserError(
                f"field.levels is the length of the table for field.label 'index', which is "
                f"{self.label!r}"
            )
        return self


Head = Annotated[
    Literal["sum", "inner", "denoising"],
    default_of("scorefield.fields.potential:PotentialField", "head"),
]


class PreconditionedModel(Prediction):
    """:class:`~scorefield.fields.PreconditionedField`: a network as a field."""

    kind: Literal["preconditioned"]
    network: Network


class PotentialModel(Prediction):
    """:class:`~scorefield.fields.PotentialField`: the gradient of a scalar made by ``head``."""

    kind: Literal["potential"]
    head: Head
    network: Network


class HybridModel(Prediction):
    """:class:`~scorefield.fields.HybridField`: at noise levels up to ``sigma_c`` a potential, made
    of ``low_network`` and ``head``; above, the plain ``network``.
    """

    kind: Literal["hybrid"]
    sigma_c: Positive
    head: Head
    network: Network
    low_network: Network


Model = Annotated[PreconditionedModel | PotentialModel | HybridModel, Field(discriminator="kind")]


def sigma_data(model: Model, source: DataSource) -> float:
    """The standard deviation that a field is scaled by: as configured, or that of the data."""
    return source.std if model.sigma_data is None else model.sigma_data


def table_length(model: Model, process: Process) -> int | None:
    """The length of the table of noise levels that a field is made for."""
    return process.levels if isinstance(process, TableProcess) else model.levels


def build_field(
    model: Model, process: Process, data: Data, source: DataSource, seed: int
) -> ScoreField:
    """The untrained field.

    Arguments:
        model: Its section.
        process: The section of the forward process.
        data: The section of the data.
        source: The data.
        seed: The seed of its weights.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    from scorefield.domain import Euclidean
    from scorefield.fields import HybridField, PotentialField, PreconditionedField

    sde = build_sde(process)
    scaling = _parametrization(model, process, source)
    domain = Euclidean(source.shape) if source.truth is None else source.truth.domain
    known: dict[str, Any] = {"centered": getattr(data, "centered", True), **_table(model, process)}
    if hasattr(data, "period"):
        known["period"] = data.period

    def plain(seed: int) -> PreconditionedField:
        network = build_network(model.network, "field.network", source, seed=seed, **known)
        return PreconditionedField(network, sde, parametrization=scaling, domain=domain)

    def potential(key: str, network: Network, head: Any, seed: int) -> PotentialField:
        # A sum over several outputs is no more than one output.
        outputs = 1 if head == "sum" else None
        backbone = build_network(network, key, source, seed=seed, outputs=outputs, **known)
        return PotentialField(backbone, sde, None, scaling, domain, head)

    match model:
        case PreconditionedModel():
            return plain(seed)
        case PotentialModel():
            return potential("field.network", model.network, model.head, seed)
        case HybridModel():
            if not sde.sigma_min < model.sigma_c < sde.sigma_max:
                raise ConfigError(
                    f"field.sigma_c is {model.sigma_c:g}, it must lie between the noise levels "
                    f"{sde.sigma_min:g} and {sde.sigma_max:g} of the process"
                )
            # The two networks start from unrelated weights.
            low = potential("field.low_network", model.low_network, model.head, -1 - seed)
            return HybridField(low, plain(seed), model.sigma_c)


def _table(model: Model, process: Process) -> dict[str, Any]:
    """The noise levels that a network has a table of, where it is given their places."""
    if model.label != "index":
        return {}
    assert isinstance(process, VEProcess)
    ends = {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
    return {**ends, "levels": model.levels}


def _parametrization(model: Model, process: Process, source: DataSource) -> Parametrization:
    from scorefield.fields import EDMScaling, NoisePrediction, ScorePrediction

    with section_of("field"):
        label = _label(model, process)
        match model.parametrization:
            case "edm":
                return EDMScaling(sigma_data(model, source), label)
            case "noise":
                return NoisePrediction(label)
            case "score":
                return ScorePrediction(label)


def _label(model: Model, process: Process) -> Label:
    from scorefield.fields import IndexLabel, LogNoiseLabel, SigmaLabel, TimeLabel

    match model.label:
        case "lognoise":
            return LogNoiseLabel()
        case "sigma":
            return SigmaLabel()
        case "time":
            steps = process.levels if isinstance(process, TableProcess) else _STEPS
            return TimeLabel(float(steps - 1))
        case "unit_time":
            return TimeLabel(1.0)
        case "index":
            assert model.levels is not None
            return IndexLabel(model.levels)
