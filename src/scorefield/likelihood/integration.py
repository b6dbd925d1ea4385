r"""The density of a model, by the change of variables along its probability flow.

Along the flow :math:`\dot y = v(y, \varphi)` in the angular coordinates of
:mod:`scorefield.samplers.flow` the log-density of :math:`y` changes by :math:`-\nabla \cdot v`, so
that with :math:`y = \hat x \cos\varphi = x_t / \sqrt{\alpha^2 + \sigma^2}`, from the least angle to
the greatest,

.. math:: \log q(\hat x_{min}) = \log p_{prior}(x_{t_{max}}) + D \log\big(\cos\varphi_{min}
    \sqrt{\alpha_{max}^2 + \sigma_{max}^2}\big)
    + \int_{\varphi_{min}}^{\varphi_{max}} \mathrm{tr}\,A\;\mathrm{d}\varphi, \qquad
    A = \frac{\partial v}{\partial y}
    = \frac{\alpha}{\cos^2\varphi} \frac{\partial\hat\varepsilon}{\partial x_t} - \tan\varphi\, I .

This is the density of data blurred by the least noise level; the flow of any field has one, whether
the field is a gradient or not. One evaluation with the products back through it gives :math:`v` and
:math:`\mathrm{tr}\,A` together. In these coordinates :math:`A` vanishes for normal data of unit
variance, and at high noise for all data, so that neither steps nor the variance of probes are spent
on the part of the Jacobian that is the same for any field.

**Solver error.** The integration is done again at 32 times the tolerance, where steps are about
twice as long; the reported error is the change between the two, or the embedded estimate of the
finer one where that is more. It exceeded the true error at 96 of 100 points or more of mixtures,
correlated normals and trained networks at tolerances from :math:`10^{-3}` to :math:`10^{-7}`.

The embedded estimate: the local error :math:`(e_y, e_\ell)` of a step at its end changes the result
by :math:`e_\ell + \nabla_y \log q_\varphi \cdot e_y`. The score of the flow is the field's own,
:math:`-\hat\varepsilon / \sin\varphi`, as far as the prior is the density that the field ends in;
the difference of their scores at the end is carried back along the flow, which moves it little in
these coordinates, and is added to it. Both effects are added up in absolute value, the second by
coordinates: of data far from the prior's centre, in its standard deviations, it is all of the
error. The estimate is of order 4 and the result of order 5, so that their errors are in a ratio of
:math:`\mathrm{tol}^{1/5}`; the sum is taken times :math:`100\,\mathrm{tol}^{1/5}`. Alone
(``solver_error="embedded"``) it costs no call, and is right at typical points; between narrow modes
the true error was up to 7 times as large.

References:
    Neural ordinary differential equations (Chen, Rubanova, Bettencourt and Duvenaud, 2018),
    theorem 1.

    FFJORD: free-form continuous dynamics for scalable reversible generative models (Grathwohl,
    Chen, Bettencourt, Sutskever and Duvenaud, 2019), section 3.1, for fixed probes.

    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equation 39 and appendix D.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import basis, value_and_products
from scorefield.calculus.trace import ProbeKind, draw_probes, orthonormal, without
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import classes_at
from scorefield.likelihood.density import LogProb
from scorefield.noise import Noise
from scorefield.samplers.flow import Flow
from scorefield.samplers.runge_kutta import solve

_AUDITED = 100.0
"""How many times the embedded error is reported, times the tolerance to the power 1 / 5."""

_COARSER = 32.0
"""The ratio of two tolerances whose steps are as 1 to 2, at order 5."""

_JUDGED = 16
"""How many probes it takes for a small standard error to be a reason to stop. Where it is small by
chance one stops too early: intervals at 95 % then cover 93 % from 8 probes on, and 94 % from 16."""

_SKETCHED = (0.02, 0.1, 0.5)
"""The noise levels at which the directions of reduced variance are sought, in units of the data."""


class _Round(NamedTuple):
    """What one integration gives: an estimate for each probe, one if the trace is exact."""

    value: Float[Tensor, "batch probes"]
    solver_error: Float[Tensor, " batch"]
    calls: Int[Tensor, " batch"]
    latent: Float[Tensor, "batch *event"]


@dataclass(frozen=True)
class Integration:
    """The integrations of points along their flow; see :func:`.log_prob`."""

    field: ScoreField
    x: Tensor
    index: Tensor
    classes: Tensor | None
    noise: Noise
    rtol: float
    atol: float
    max_calls: int
    exact: bool
    kind: ProbeKind
    rank: int
    two: bool
    t_min: float

    def run(self, n: int, target: float | None, most: int) -> LogProb:
        """Integrates, and again with more probes where the standard error asks for it."""
        everyone = torch.arange(len(self.x), device=self.x.device)
        if self.exact:
            found = self.round(everyone, range(0))
            zero = torch.zeros_like(found.value[:, 0])
            whole = torch.ones_like(zero, dtype=torch.bool)
            count = torch.zeros_like(found.calls)
            told = found.solver_error, count, found.calls, found.latent, whole
            return LogProb(found.value[:, 0], zero, *told)
        first = n if target is None else max(n, _JUDGED)
        found = self.round(everyone, range(min(first, most)))
        value, error = _summary(found.value)
        count = torch.full_like(found.calls, found.value.shape[1])
        result = LogProb(
            value, error, found.solver_error, count, found.calls, found.latent, error <= math.inf
        )
        if target is None:
            return result
        estimates, rows = found.value, everyone
        while True:
            missing = error > target
            done = estimates.shape[1]
            rows, estimates = rows[missing], estimates[missing]
            if done >= most or not len(rows):
                return replace(result, reached=result.standard_error <= target)
            found = self.round(rows, range(done, min(2 * done, most)))
            more = found.value.shape[1]
            estimates = torch.cat((estimates, found.value), dim=1)
            value, error = _summary(estimates)
            result.value[rows], result.standard_error[rows] = value, error
            result.n_probes[rows] += more
            result.calls[rows] += found.calls
            mixed = done * result.solver_error[rows] + more * found.solver_error
            result.solver_error[rows] = mixed / (done + more)

    def round(self, rows: Tensor, numbers: range) -> _Round:
        """Integrates some of the points with the probes of these numbers."""
        fine = self._integrate(rows, numbers, 1.0)
        if not self.two:
            return fine
        coarse = self._integrate(rows, numbers, _COARSER)
        change = (fine.value - coarse.value).mean(dim=1).abs()
        error = torch.maximum(change, fine.solver_error)
        return fine._replace(solver_error=error, calls=fine.calls + coarse.calls)

    def _integrate(self, rows: Tensor, numbers: range, coarser: float) -> _Round:
        x, field = self.x[rows], self.field
        flow = Flow(field, classes_at(self.classes, rows))
        sde, domain = field.sde, field.domain
        batch, dim = len(x), domain.dim
        start, end = flow.angle(self.t_min), flow.angle(sde.t_max)
        vectors, known = self._vectors(flow, x, rows, numbers)
        count = max(1, len(vectors) - known)

        def slope(angle: Tensor, state: Tensor, active: Tensor) -> Tensor:
            place = flow.at(angle, state.dtype)
            v = vectors if len(active) == batch else vectors[:, active]
            points = flow.points(state[:, :dim], place)
            own = classes_at(flow.classes, active)
            noise, products = value_and_products(field.predict_noise, points, place.time, v, own)
            velocity = noise.reshape(-1, dim) / place.cos - place.tan * state[:, :dim]
            v, products = v.reshape(len(v), -1, dim), products.reshape(len(v), -1, dim)
            forms, squares = (products * v).sum(dim=2).T, v.square().sum(dim=2).T
            forms = place.alpha / place.cos**2 * forms - place.tan * squares
            sure = forms[:, :known].sum(dim=1, keepdim=True)
            gains = sure + forms[:, known:] if len(vectors) > known else sure
            return torch.cat((velocity, gains), dim=1)

        def measure(error: Tensor) -> Tensor:
            gain = error[:, dim:].mean(dim=1).abs() / math.sqrt(dim)
            return torch.maximum(error[:, :dim].square().mean(dim=1).sqrt(), gain)

        def audit(error: Tensor, angle: Tensor, state: Tensor, velocity: Tensor) -> Tensor:
            score = _score(angle, state[:, :dim], velocity[:, :dim])
            gain = error[:, dim:].mean(dim=1) + (score * error[:, :dim]).sum(dim=1)
            return torch.cat((gain.unsqueeze(1), error[:, :dim]), dim=1)

        state = torch.cat((math.cos(start) * x.reshape(batch, dim), x.new_zeros(batch, count)), 1)
        solution = solve(
            slope, state, start, end, coarser * self.rtol, coarser * self.atol,
            max_calls=self.max_calls, measure=measure, audit=audit,
        )  # fmt: skip
        flow.check(solution, self.index[rows])
        last = torch.tensor(sde.t_max, dtype=torch.float64)
        alpha, sigma = float(sde.alpha(last)), float(sde.sigma(last))
        latent = alpha * flow.scaled(solution)
        law = sde.prior(domain)
        prior = law.log_prob(latent) + dim * math.log(math.cos(start) * math.hypot(alpha, sigma))
        value = prior.unsqueeze(1) + solution.y[:, dim:]
        sketched = len(_SKETCHED) if 0 < known < dim else 0
        own = torch.func.grad(lambda v: law.log_prob(v).sum())(latent).reshape(batch, dim)
        own = own * alpha / math.cos(end)
        missed = own - _score(solution.place, solution.y[:, :dim], solution.slope[:, :dim])
        effects = solution.audited[:, 0] + (solution.audited[:, 1:] * missed.abs()).sum(dim=1)
        factor = _AUDITED * max(solution.rtol, solution.atol) ** (1 / 5)
        told = (factor * effects).to(x.dtype)
        return _Round(value, told, solution.calls + sketched, latent)

    def _vectors(self, flow: Flow, x: Tensor, rows: Tensor, numbers: range) -> tuple[Tensor, int]:
        """The vectors whose forms are taken, and how many of them, the first, are no probes."""
        index = self.index[rows]
        if self.exact:
            return basis(x), self.field.domain.dim
        v = draw_probes(self.noise, self.kind, x.shape[1:], index, numbers, x.dtype)
        if self.kind != "variance_reduced" or self.rank < 1:
            return v, 0
        q = self._directions(flow, x, index)
        return torch.cat((q, without(v, q))), len(q)

    def _directions(self, flow: Flow, x: Tensor, index: Tensor) -> Tensor:
        """Orthonormal directions in which the velocity bends most, at the points themselves."""
        (least, most), rank = flow.sde.level_range, self.rank
        numbers = torch.arange(rank, device=index.device).unsqueeze(1)
        v = self.noise.signs("sketch", x.shape[1:], index, numbers, dtype=x.dtype)
        sketch = torch.zeros_like(v)
        for level in _SKETCHED:
            angle = math.atan(min(max(level, least), most))
            angles = x.new_full((len(x),), angle, dtype=torch.float64)
            place = flow.at(angles, x.dtype)
            points = flow.points(math.cos(angle) * x.reshape(len(x), -1), place)
            fn = flow.field.predict_noise
            _, products = value_and_products(fn, points, place.time, v, flow.classes)
            alpha = float(place.alpha[0])
            sketch += alpha / math.cos(angle) ** 2 * products - math.tan(angle) * v
        return orthonormal(sketch)


def _score(angle: Tensor, y: Tensor, velocity: Tensor) -> Tensor:
    """The field's score in angular coordinates, from its velocity."""
    sin, cos = (v.to(y.dtype).unsqueeze(1) for v in (angle.sin(), angle.cos()))
    return -(cos * velocity + sin * y) / sin


def _summary(estimates: Float[Tensor, "batch probes"]) -> tuple[Tensor, Tensor]:
    """The means of the estimates of several probes, and their standard errors."""
    n, mean = estimates.shape[1], estimates.mean(dim=1)
    if n == 1:
        return mean, torch.full_like(mean, math.inf)
    return mean, estimates.std(dim=1) / math.sqrt(n)
