"""What a configuration may say about sampling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scorefield.config.section import Count, NonNegative, Positive, Section
from scorefield.errors import UserError

Spacing = Literal["karras", "time", "logsnr"]


class KarrasMethod(Section):
    """:class:`~scorefield.samplers.Euler` or :class:`~scorefield.samplers.Heun`."""

    kind: Literal["euler", "heun"]
    steps: Count = 18
    rho: Positive = 7.0
    churn: NonNegative = 0.0
    churn_min: NonNegative = 0.0
    churn_max: Positive | None = None
    churn_noise: Positive = 1.0

    @model_validator(mode="after")
    def _window(self) -> KarrasMethod:
        if self.churn_max is not None and self.churn_max < self.churn_min:
            raise UserError(
                f"sampler.churn_max is {self.churn_max}, it must be at least sampler.churn_min, "
                f"which is {self.churn_min}"
            )
        return self


class PredictorCorrectorMethod(Section):
    """:class:`~scorefield.samplers.PredictorCorrector`.

    ``discretization`` says how the process steps forward: by its own transitions, or by the levels
    of a table, which are as many as there are ``steps``. ``probability_flow`` is the predictor's;
    ``snr``, ``corrector_steps`` and ``norm`` are the corrector's. ``t_end: null`` is what is
    customary for the process.
    """

    kind: Literal["predictor_corrector"]
    steps: Annotated[int, Field(ge=2, le=10**12)] = 1000
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] = (
        "reverse_diffusion"
    )
    probability_flow: bool = False
    corrector: Literal["langevin", "annealed", "none"] = "none"
    snr: Positive = 0.16
    corrector_steps: Count = 1
    norm: Literal["sample", "batch"] = "sample"
    discretization: Literal["exact", "smld", "ddpm", "euler"] = "exact"
    first: Literal["corrector", "predictor"] = "corrector"
    spacing: Spacing = "time"
    t_end: Positive | None = None
    denoise: bool = True

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


class ODEMethod(Section):
    """:class:`~scorefield.samplers.ProbabilityFlow`; ``t_end: null`` is where the process
    begins.
    """

    kind: Literal["ode"]
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    t_end: Positive | None = None
    denoise: bool = True
    max_calls: Count = 10_000


class DDIMMethod(Section):
    """:class:`~scorefield.samplers.DDIM`."""

    kind: Literal["ddim"]
    steps: Count = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    spacing: Spacing = "karras"
    rho: Positive = 7.0


class DPMSolverMethod(Section):
    """:class:`~scorefield.samplers.DPMSolverPlusPlus2M`."""

    kind: Literal["dpm_solver"]
    steps: Count = 20
    spacing: Spacing = "karras"
    rho: Positive = 7.0


SamplerSection = Annotated[
    KarrasMethod | PredictorCorrectorMethod | ODEMethod | DDIMMethod | DPMSolverMethod,
    Field(discriminator="kind"),
]
