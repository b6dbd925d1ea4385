"""A whole configuration, and the conditions between its sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from scorefield.config.base import Section, Seed, check_below, section
from scorefield.config.data import Data, LatentsData
from scorefield.config.engine import EngineSection
from scorefield.config.field import HybridModel, Model, Network, kinds
from scorefield.config.objective import ObjectiveSection
from scorefield.config.sampler import SamplerSection
from scorefield.config.sde import Process, TableProcess, VEProcess
from scorefield.config.train import EvalSection, OptimSection, TrainSection
from scorefield.errors import UserError


class Config(Section):
    """A whole experiment.

    ``name`` is ``family/member``: where its runs are kept; ``description`` is for people, and so is
    ``published``, the result that others have published of such a model, with its source.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w+=.,@-]*/\w[\w+=.,@-]*$")]
    description: str = ""
    data: Data
    sde: Process = section(kind="edm")
    field: Model
    objective: ObjectiveSection = section()
    optim: OptimSection = section()
    train: TrainSection = section()
    sampler: SamplerSection = section(kind="heun")
    eval: EvalSection = section()
    engine: EngineSection = section()
    seed: Seed = 0
    published: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._check_networks()
        self._check_table()
        self._check_torus()
        self._check_teacher()
        self._check_augmentation()
        for name, kind in (("boundary", "hybrid"), ("dual", "potential")):
            if name in self.objective.terms and self.field.kind != kind:
                raise UserError(
                    f"objective.{name} needs a field of kind {kind!r}, field.kind is "
                    f"{self.field.kind!r}"
                )
        cycles, batch = self.objective.cycles, self.train.batch_size
        if cycles is not None:
            check_below("objective.cycles.neighbours", cycles.neighbours, "train.batch_size", batch)
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """The networks of the field, by their keys."""
        networks = {"field.network": self.field.network}
        if isinstance(self.field, HybridModel):
            networks["field.low_network"] = self.field.low
        return networks

    @property
    def centered(self) -> bool:
        """Whether the values of images lie in [-1, 1]; in [0, 1] otherwise."""
        return getattr(self.data, "centered", True)

    @property
    def levels(self) -> int | None:
        """The length of the table of noise levels that the field is made for."""
        return self.sde.levels if isinstance(self.sde, TableProcess) else self.field.levels

    def _check_networks(self) -> None:
        for key, network in self.networks.items():
            if network.takes != self.data.points and None not in (network.takes, self.data.points):
                raise UserError(
                    f"{key}.kind is {network.kind!r}, but data of kind {self.data.kind!r} needs "
                    + " or ".join(map(repr, kinds(self.data.points)))
                )
            tabular = network.kind in ("ncsn", "ncsnv2")
            if tabular and self.field.label != "index":
                raise UserError(
                    f"{key}.kind is {network.kind!r}, which takes the noise level as its place "
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
        for name in ("fokker_planck", "dual"):
            if name in self.objective.terms and self.levels is not None:
                raise UserError(
                    f"objective.{name} differentiates the field in time, which a table of noise "
                    "levels, that of field.label 'index' or of sde.kind 'discrete_vp', does not "
                    "allow"
                )
        if self.objective.law.kind == "table" and self.levels is None:
            raise UserError(
                "objective.law.kind 'table' needs a table: that of sde.kind 'discrete_vp', or "
                "field.label 'index' and field.levels"
            )

    def _check_teacher(self) -> None:
        if self.objective.teacher is None:
            return
        if self.objective.pairing != "independent":
            raise UserError(
                "objective.pairing is 'transport', it must be 'independent': a distillation has no "
                "noise to be paired"
            )
        if self.objective.augmentation is not None:
            raise UserError(
                "objective.augmentation is not for a distillation, whose teacher does not receive "
                "its labels"
            )

    def _check_augmentation(self) -> None:
        if self.objective.augmentation is None:
            return
        if isinstance(self.data, LatentsData):
            raise UserError(
                "objective.augmentation is for images, and latents are not transformed: those of a "
                "transformed image are not the transformed ones of the image; without it, "
                "objective.augmentation=null"
            )
        if self.data.points not in ("images", None):
            raise UserError(
                f"objective.augmentation is for images, data.kind is {self.data.kind!r}; without "
                "it, objective.augmentation=null"
            )

    def _check_torus(self) -> None:
        if self.data.points != "atoms":
            for name, term in self.objective.terms.items():
                if getattr(term, "points", None) == "uniform":
                    raise UserError(
                        f"objective.{name}.points 'uniform' needs a torus, that of data of kind "
                        f"'atoms', data.kind is {self.data.kind!r}"
                    )
            return
        if self.objective.pairing != "independent":
            raise UserError(
                f"objective.pairing is {self.objective.pairing!r}, which takes points of flat "
                "space to noise, it must be 'independent': data of kind 'atoms' live on a torus"
            )
        if not self.sde.keeps_scale:
            raise UserError(
                f"sde.kind is {self.sde.kind!r}, which shrinks the data: data of kind 'atoms' live "
                f"on a torus and need 've' or 'edm'"
            )
        if self.sde.prior_mean != 0:
            raise UserError(
                f"sde.prior_mean is {self.sde.prior_mean}, it must be 0: data of kind 'atoms' live "
                f"on a torus, where sampling starts from everywhere alike"
            )
        if self.field.parametrization not in ("noise", "score"):
            raise UserError(
                f"field.parametrization is {self.field.parametrization!r}, whose skip connection "
                "is not periodic: data of kind 'atoms' live on a torus and need 'noise' or 'score'"
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

    def identity(self) -> dict[str, Any]:
        """What distinguishes a run from others, as plain values: all but what describes it, and the
        engine, on which its results depend in rounding only.
        """
        return self.model_dump(mode="json", exclude={"description", "published", "engine"})
