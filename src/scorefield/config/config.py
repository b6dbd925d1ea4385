"""What a configuration may say.

One frozen model a section. Where a section can be one of several things, its key ``kind`` says
which, and decides what other keys it has. Numbers are in the units of the classes that they are
given to, which are named in each docstring; ``null`` stands for none. Data, process and field have
a file of their own, :mod:`~scorefield.config.model`, as have networks, objectives and
samplers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from scorefield.config.model import (
    AtomsData,
    Data,
    EDMProcess,
    HybridModel,
    ImagesData,
    Model,
    Process,
    TableProcess,
    VEProcess,
)
from scorefield.config.network_section import ATOM_NETWORKS, IMAGE_NETWORKS, Network
from scorefield.config.objective_section import ObjectiveSection
from scorefield.config.sampler_section import KarrasMethod, SamplerSection
from scorefield.config.section import (
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    Positives,
    Section,
)
from scorefield.errors import UserError

# ---------------------------------------------------------------- optim, train, sampler and eval


class OptimSection(Section):
    """The optimiser: ``lr`` rises over ``warmup`` steps, then decays to zero by the last step or
    stays; the gradient's norm is cut at ``clip``.
    """

    kind: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-3
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    warmup: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine", "inverse_sqrt"] = "constant"
    clip: Positive | None = None


class TrainSection(Section):
    """How long and with what; ``keep`` is the number of newest checkpoints that
    stay, ``null`` for all.
    """

    steps: Count = 10_000
    batch_size: Count = 512
    checkpoint_every: Count = 1000
    log_every: Count = 100
    ema_decay: Fraction = 0.999
    keep: Count | None = 2


class EvalSection(Section):
    """The protocol that a field is judged by.

    ``samples`` samples for each number ``nfes`` of network calls, against as many real points;
    the noise floor over ``pairs`` pairs of real sets; diagnostics on ``points`` noisy points at
    each noise level of ``sigmas``; ``along`` says whether the checkpoints along the training are
    measured too.
    """

    nfes: Counts = (8, 18, 32, 64)
    along: bool = True
    samples: Annotated[int, Field(ge=4)] = 2048
    pairs: Annotated[int, Field(ge=2)] = 8
    sigmas: Positives = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    points: Annotated[int, Field(ge=2)] = 256
    seed: int = 0


# ------------------------------------------------------------------------------------- the whole


class Config(Section):
    """A whole experiment.

    ``name`` is ``family/member``: where its runs are kept; ``description`` is for people.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w+=.,@-]*/\w[\w+=.,@-]*$")]
    description: str = ""
    data: Data
    sde: Process = EDMProcess(kind="edm")
    field: Model
    objective: ObjectiveSection = ObjectiveSection()
    optim: OptimSection = OptimSection()
    train: TrainSection = TrainSection()
    sampler: SamplerSection = KarrasMethod(kind="heun")
    eval: EvalSection = EvalSection()
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._check_networks()
        self._check_table()
        self._check_torus()
        if self.objective.boundary is not None and not isinstance(self.field, HybridModel):
            raise UserError(
                f"objective.boundary needs a field of kind 'hybrid', field.kind is "
                f"{self.field.kind!r}"
            )
        cycles, batch = self.objective.cycles, self.train.batch_size
        if cycles is not None and cycles.neighbours >= batch:
            raise UserError(
                f"objective.cycles.neighbours is {cycles.neighbours}, it must be below "
                f"train.batch_size, which is {batch}"
            )
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """The networks of the field, by their keys."""
        networks = {"field.network": self.field.network}
        if isinstance(self.field, HybridModel):
            networks["field.low_network"] = self.field.low_network
        return networks

    @property
    def levels(self) -> int | None:
        """The length of the table of noise levels that the field was made for."""
        return self.sde.levels if isinstance(self.sde, TableProcess) else self.field.levels

    @property
    def centered(self) -> bool:
        """Whether the values of images lie in [-1, 1]; in [0, 1] otherwise."""
        return self.data.centered if isinstance(self.data, ImagesData) else True

    def _check_networks(self) -> None:
        wanted = {"ring": ("mlp",), "atoms": ATOM_NETWORKS}.get(self.data.kind, IMAGE_NETWORKS)
        for key, network in self.networks.items():
            if network.kind not in wanted:
                raise UserError(
                    f"{key}.kind is {network.kind!r}, but data of kind {self.data.kind!r} needs "
                    + " or ".join(map(repr, wanted))
                )
            tabular = network.kind in ("ncsn", "ncsnv2")
            if tabular and self.field.label != "index":
                raise UserError(
                    f"{key}.kind is {network.kind!r}, which is told the noise level by its place "
                    f"in a table: field.label must be 'index', not {self.field.label!r}"
                )
            scaled = getattr(network, "scale_by_sigma", False)
            label = "sigma" if getattr(network, "embedding", None) == "fourier" else "index"
            if scaled and self.field.label != label:
                raise UserError(
                    f"{key}.scale_by_sigma needs field.label {label!r}, it is {self.field.label!r}"
                )

    def _check_table(self) -> None:
        if self.field.label == "index" and not isinstance(self.sde, VEProcess):
            raise UserError(f"field.label 'index' needs sde.kind 've', it is {self.sde.kind!r}")
        if self.objective.fokker_planck is not None and self.levels is not None:
            raise UserError(
                "objective.fokker_planck differentiates the field in time, which a table of noise "
                "levels, that of field.label 'index' or of sde.kind 'discrete_vp', does not allow"
            )
        if self.objective.law.kind == "table" and self.levels is None:
            raise UserError(
                "objective.law.kind 'table' needs a table: that of sde.kind 'discrete_vp', or "
                "field.label 'index' and field.levels"
            )

    def _check_torus(self) -> None:
        if not isinstance(self.data, AtomsData):
            for name, term in self.objective.terms.items():
                if getattr(term, "points", None) == "uniform":
                    raise UserError(
                        f"objective.{name}.points 'uniform' needs a torus, that of data of kind "
                        f"'atoms', data.kind is {self.data.kind!r}"
                    )
            return
        if self.sde.kind not in ("ve", "edm"):
            raise UserError(
                f"sde.kind is {self.sde.kind!r}, which shrinks the data: data of kind 'atoms' live "
                f"on a torus and need 've' or 'edm'"
            )
        if self.sde.prior_mean != 0:
            raise UserError(
                f"sde.prior_mean is {self.sde.prior_mean}, it must be 0: data of kind 'atoms' live "
                f"on a torus, where sampling starts from everywhere alike"
            )
        if self.field.parametrization == "edm":
            raise UserError(
                "field.parametrization is 'edm', whose skip connection is not periodic: data of "
                "kind 'atoms' live on a torus and need 'noise' or 'score'"
            )
        head = getattr(self.field, "head", "sum")
        if head != "sum":
            raise UserError(
                f"field.head is {head!r}, of which no potential is periodic: data of kind 'atoms' "
                f"live on a torus and need 'sum'"
            )

    @property
    def folder(self) -> Path:
        """Where its run is kept, in the folder of all runs: ``dataset/model_id/seed{n}``."""
        return Path(self.name) / f"seed{self.seed}"

    def document(self) -> dict[str, Any]:
        """The configuration as plain values, every key spelt out."""
        return self.model_dump(mode="json")
