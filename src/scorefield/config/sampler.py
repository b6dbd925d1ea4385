"""How a field is sampled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from scorefield.config.base import Count, NonNegative, Positive, Section, default_of
from scorefield.errors import UserError

if TYPE_CHECKING:
    from scorefield.samplers.correctors import Corrector
    from scorefield.samplers.predictors import Predictor
    from scorefield.sde.discrete import Discretization

_LANGEVIN = "scorefield.samplers.correctors:Langevin"
Spacing = Literal["karras", "time", "logsnr"]


class KarrasMethod(Section):
    """A method on the grid of Karras et al.; ``churn_max: null`` is no bound."""

    kind: str
    steps: Count
    rho: Positive
    churn: NonNegative
    churn_min: NonNegative
    churn_max: Positive | None = None
    churn_noise: Positive

    @model_validator(mode="after")
    def _window(self) -> KarrasMethod:
        if self.churn_max is not None and self.churn_max < self.churn_min:
            raise UserError(
                f"sampler.churn_max is {self.churn_max}, it must be at least sampler.churn_min, "
                f"which is {self.churn_min}"
            )
        return self

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        return found | {"churn_max": math.inf if self.churn_max is None else self.churn_max}


class EulerMethod(KarrasMethod):
    """:class:`~.Euler`."""

    builds = "scorefield.samplers.solvers:Euler"
    kind: Literal["euler"]


class HeunMethod(KarrasMethod):
    """:class:`~.Heun`."""

    builds = "scorefield.samplers.solvers:Heun"
    kind: Literal["heun"]


class PredictorCorrectorMethod(Section):
    """:class:`~.PredictorCorrector`.

    ``discretization`` is the forward step of the process: by its own transitions, or by the levels
    of a table, which are as many as there are ``steps``. ``probability_flow`` is the predictor's;
    ``snr``, ``corrector_steps`` and ``norm`` are the corrector's. ``t_end: null`` and ``spacing:
    null`` are what is customary for the process.
    """

    builds = "scorefield.samplers.predictor_corrector:PredictorCorrector"
    kind: Literal["predictor_corrector"]
    steps: Annotated[int, Field(ge=2, le=10**12)]
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] = (
        "reverse_diffusion"
    )
    probability_flow: bool = default_of(
        "scorefield.samplers.predictors:ReverseDiffusion", "probability_flow"
    )
    corrector: Literal["langevin", "annealed", "none"] = "none"
    snr: Positive = default_of(_LANGEVIN, "snr")
    corrector_steps: Count = default_of(_LANGEVIN, "steps")
    norm: Literal["sample", "batch"] = default_of(_LANGEVIN, "norm")
    discretization: Literal["exact", "smld", "ddpm", "euler"] = "exact"
    first: Literal["corrector", "predictor"]
    spacing: Spacing | None
    t_end: Positive | None
    denoise: bool

    @model_validator(mode="after")
    def _something(self) -> PredictorCorrectorMethod:
        if self.predictor == "none" and self.corrector == "none":
            raise UserError("sampler.predictor and sampler.corrector are both 'none'")
        if self.probability_flow and self.predictor not in ("reverse_diffusion", "euler_maruyama"):
            raise UserError(
                f"sampler.probability_flow is for the predictors reverse_diffusion and "
                f"euler_maruyama, not for {self.predictor!r}"
            )
        return self

    def settings(self) -> dict[str, Any]:
        own = ("steps", "first", "spacing", "t_end", "denoise")
        return {key: getattr(self, key) for key in own} | {
            "predictor": self.build_predictor(),
            "corrector": self.build_corrector(),
            "discretization": self.build_discretization(),
        }

    def build_predictor(self) -> Predictor | None:
        """The predictor."""
        from scorefield.samplers.predictors import Ancestral, EulerMaruyama, ReverseDiffusion

        match self.predictor:
            case "reverse_diffusion":
                return ReverseDiffusion(self.probability_flow)
            case "euler_maruyama":
                return EulerMaruyama(self.probability_flow)
        return Ancestral() if self.predictor == "ancestral" else None

    def build_corrector(self) -> Corrector | None:
        """The corrector."""
        from scorefield.samplers.correctors import AnnealedLangevin, Langevin

        if self.corrector == "langevin":
            return Langevin(self.snr, self.corrector_steps, self.norm)
        annealed = self.corrector == "annealed"
        return AnnealedLangevin(self.snr, self.corrector_steps) if annealed else None

    def build_discretization(self) -> Discretization:
        """How the process steps forward."""
        from scorefield.sde.discrete import DDPMSteps, EulerForward, Exact, SMLDSteps

        if self.discretization == "exact":
            return Exact()
        if self.discretization == "euler":
            return EulerForward(self.steps)
        return (SMLDSteps if self.discretization == "smld" else DDPMSteps)(self.steps)


class ODEMethod(Section):
    """:class:`~.ProbabilityFlow`; ``t_end: null`` is where the process
    begins.
    """

    builds = "scorefield.samplers.ode:ProbabilityFlow"
    kind: Literal["ode"]
    rtol: Positive
    atol: Positive
    t_end: Positive | None
    denoise: bool
    max_calls: Count


class DDIMMethod(Section):
    """:class:`~.DDIM`."""

    builds = "scorefield.samplers.solvers:DDIM"
    kind: Literal["ddim"]
    steps: Count
    eta: Annotated[float, Field(ge=0, le=1)]
    spacing: Spacing
    rho: Positive


class DPMSolverMethod(Section):
    """:class:`~.DPMSolverPlusPlus2M`."""

    builds = "scorefield.samplers.solvers:DPMSolverPlusPlus2M"
    kind: Literal["dpm_solver"]
    steps: Count
    spacing: Spacing
    rho: Positive


SamplerSection = Annotated[
    EulerMethod | HeunMethod | PredictorCorrectorMethod | ODEMethod | DDIMMethod | DPMSolverMethod,
    Field(discriminator="kind"),
]
