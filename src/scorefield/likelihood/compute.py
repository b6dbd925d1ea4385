"""The log-density of a model at points."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.trace import ProbeKind
from scorefield.checks import check_count, check_finite, check_positive
from scorefield.engine import exact as exactly
from scorefield.engine import states_at_once
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.classes import Classes, classes_at
from scorefield.likelihood.density import LogProb
from scorefield.likelihood.integration import Integration
from scorefield.noise import Noise
from scorefield.samplers.latent import check_points
from scorefield.samplers.runge_kutta import check_tolerances

Trace = Literal["exact", "probes"]
SolverError = Literal["embedded", "two_tolerances"]

EXACT_UP_TO = 64
"""The largest dimension whose traces are exact by default."""


def log_prob(
    field: ScoreField,
    x: Float[Tensor, "batch *event"],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trace: Trace | None = None,
    probes: ProbeKind = "rademacher",
    n_probes: int = 8,
    standard_error: float | None = None,
    max_probes: int = 1024,
    seed: int | Noise = 0,
    index: Int[Tensor, " batch"] | None = None,
    t_min: float | None = None,
    batch_size: int | None = None,
    max_calls: int = 10_000,
    solver_error: SolverError = "two_tolerances",
    classes: Classes = None,
) -> LogProb:
    r"""The log-density of the model at points, in nats.

    It is the density of :math:`\hat x = x_t / \alpha(t)` at ``t_min``, per volume in units of the
    data: that of data blurred by :math:`\lambda(t_{min})`. The smaller ``t_min``, the closer to
    the density of the data, if they have one, and the harder for the field; of VE it is never
    less than ``sigma_min``. Steps, probes and results of a point do not depend on its batch.

    Arguments:
        field: The score field, in evaluation mode meanwhile; no gradients are recorded.
        x: Points :math:`\hat x`, in units of the data. The dtype is that of the integration.
        rtol: The relative tolerance of a step, for the state and the log-density.
        atol: The absolute tolerance, likewise; of the log-density it is times :math:`\sqrt D` nats.
        trace: ``"exact"`` takes :math:`D` products back a call; ``"probes"`` takes ``n_probes``. By
            default exact up to :data:`EXACT_UP_TO` dimensions.
        probes: ``"rademacher"`` for signs, ``"gaussian"`` for normals, ``"variance_reduced"`` for
            signs beside as many directions, chosen for each point, whose part of the trace is exact
            (as many products again, a third of the dimensions at most); see
            :mod:`scorefield.calculus.trace`.
        n_probes: The number of probes of a point; with one, its standard error is infinite.
        standard_error: If given, points have 16 probes at least, and those with a larger standard
            error get as many more again until it is reached, or there are ``max_probes``.
        max_probes: The largest number of probes of a point.
        seed: The seed of the probes, or the noise itself, at ``("probe", index, number)``.
        index: The names of the points in these addresses; 0, 1, 2, … by default.
        t_min: The time of the points; the process's own ``t_min`` by default.
        batch_size: How many points are integrated at once; by default as many as suit the cache of
            a CPU or the memory of a GPU.
        max_calls: The largest number of calls of a point in one integration.
        solver_error: How the error of the integration is found: ``"two_tolerances"``, from a second
            integration at 32 times the tolerances, for half as many calls again; ``"embedded"``,
            from the steps of the one integration, for none.
        classes: The class of each point, or of all.

    Raises:
        ValueError: If ``x`` or the classes do not fit the field, an argument is out of its range,
            or a standard error is requested of a single probe.
        StalledError: If a point does not come to the greatest noise level.

    Example:
        >>> found = log_prob(field, truth.sample(256, seed=1, dtype=torch.float64))
        >>> found.value, found.standard_error, found.solver_error
        >>> print(found.mean())
    """
    check_points(field, x)
    check_tolerances(rtol, atol, x.dtype)
    sde, dim = field.sde, field.domain.dim
    start = sde.t_min if t_min is None else t_min
    check_finite("t_min", start)
    if not sde.t_min <= start < sde.t_max:
        raise UserError(f"t_min must lie in [{sde.t_min:g}, {sde.t_max:g}), got {start:g}")
    words = (("trace", trace, Trace), ("probes", probes, ProbeKind),
             ("solver_error", solver_error, SolverError))  # fmt: skip
    for name, value, choices in words:
        if value is not None and value not in get_args(choices):
            raise UserError(f"{name} is one of {', '.join(get_args(choices))}, not {value!r}")
    counts = {"n_probes": n_probes, "max_probes": max_probes}
    if batch_size is not None:
        counts["batch_size"] = batch_size
    for name, count in counts.items():
        check_count(name, count)
    exact = dim <= EXACT_UP_TO if trace is None else trace == "exact"
    if batch_size is None:
        products = dim if exact else n_probes
        batch_size = states_at_once(len(x), dim * products, x.dtype, x.device)
    if standard_error is not None:
        check_positive("standard_error", standard_error)
        if n_probes < 2 and not exact:
            raise UserError("n_probes must be at least 2: one probe has no standard error")
    if index is None:
        index = torch.arange(len(x), device=x.device)
    elif index.shape != x.shape[:1]:
        raise UserError(f"index names {index.numel()} points, there are {len(x)}")
    noise = seed if isinstance(seed, Noise) else Noise(seed)
    # With few dimensions left to them, probes would be far from normal, and so their mean.
    rank = min(n_probes, dim // 3)
    two = solver_error == "two_tolerances"
    parts, own = [], field.class_rows(classes, x)
    whole = Integration(
        field, x, index, own, noise, rtol, atol, max_calls, exact, probes, rank, two, start
    )
    with exactly(), torch.no_grad(), evaluation_mode(field):
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            known = classes_at(own, rows)
            batch = replace(whole, x=x[rows], index=index[rows], classes=known)
            parts.append(batch.run(n_probes, standard_error, max_probes))
    names = LogProb.__dataclass_fields__
    return LogProb(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})
