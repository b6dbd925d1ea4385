"""Whatever takes noise levels takes those of the process's times, and no others.

Variance exploding from a later first time is the process that tells the two apart: its least level
of a time is above the ``sigma_min`` that it is made with.
"""

import pytest
import torch

from scorefield import (
    VE,
    BoundaryMatching,
    Gaussian,
    HybridField,
    LogUniform,
    LoopCirculation,
    Protocol,
    log_prob,
)
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.resolve import load_config
from scorefield.diagnostics.score_error import score_error
from scorefield.errors import UserError
from scorefield.fields.planted import Matched, Radial
from scorefield.noise import Noise
from tests.planted import Watched

LATE = VE(0.01, 50.0, t_min=0.2)
LEAST = 0.01 * 5000**0.2
TRUTH = Gaussian(torch.zeros(3), std=0.5, sde=LATE)
CONFIG = "sde={kind: ve, sigma_min: 0.01, sigma_max: 50.0, t_min: 0.2}"


def evaluate(sigma):
    return score_error(TRUTH, TRUTH, Protocol((sigma,), 8))


def boundary(sigma):
    hybrid = HybridField(TRUTH, TRUTH, sigma_c=sigma)
    term = BoundaryMatching(weight=1.0, bandwidth=0.0)
    return term(hybrid, LogUniform(), torch.zeros(4, 3), Noise(0), 0)


def gate(sigma):
    term = LoopCirculation(weight=1.0, sigma_min=sigma)
    return term(TRUTH, LogUniform(), torch.zeros(4, 3), Noise(0), 0)


def configured_boundary(sigma):
    config = load_config("toy/m4", [CONFIG, f"field.sigma_c={sigma!r}"])
    return build_field(config, build_source(config))


def configured_gate(sigma):
    config = load_config("toy/m3", [CONFIG, f"objective.loops.sigma_min={sigma!r}"])
    return build_objective(config, build_source(config))


@pytest.mark.parametrize(
    "use",
    [evaluate, boundary, gate, configured_boundary, configured_gate],
    ids=lambda f: f.__name__,
)
def test_levels_below_the_first_time_are_refused(use):
    use(1.001 * LEAST)
    for level in (0.02, 0.999 * LEAST):
        with pytest.raises(UserError, match="noise level"):
            use(level)


def evaluates_between(watched):
    times = torch.cat([t.double().reshape(-1) for t in watched.times])
    return float(times.min()), float(times.max())


def test_probes_look_for_curvature_at_times_of_the_process():
    watched = Watched(TRUTH)
    log_prob(watched, TRUTH.sample(2, 0, dtype=torch.float64), trace="probes", n_probes=2,
             probes="variance_reduced", solver_error="embedded")  # fmt: skip
    least, most = evaluates_between(watched)
    assert least > LATE.t_min - 1e-9
    assert most < 1 + 1e-9


def test_sizes_are_matched_over_the_times_of_the_process():
    watched = Watched(TRUTH)
    Matched(Radial(1.0), watched, TRUTH.sample(16, 0, dtype=torch.float64), levels=5)
    assert evaluates_between(watched) == pytest.approx((LATE.t_min, 1.0), abs=1e-9)
