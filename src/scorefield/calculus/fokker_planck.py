r"""The score Fokker–Planck equation and its residual.

For :math:`\mathrm{d}x = f x\,\mathrm{d}t + g\,\mathrm{d}w` the score of the marginals obeys

.. math:: \partial_t s = \nabla \big[ \tfrac{g^2}{2} (\nabla \cdot s + |s|^2)
    - f \langle x, s \rangle - f D \big].

With the Jacobian :math:`J` of :math:`s` and :math:`u = g^2 s - f x`, minus the drift of the reverse
process, its residual has two forms,

.. math::
    r &= \partial_t s + f s - J^\top u - \tfrac{g^2}{2} \nabla (\nabla \cdot s)
        && \text{(gradient)} \\
    r &= \partial_t s + f s - J u - \tfrac{g^2}{2} \Delta s
        && \text{(component)}

which agree for a gradient. The first is the equation itself; the second is one equation per
component, as if the others were known. Their difference is pure curl: with
:math:`A = J - J^\top`,

.. math:: -A u - \tfrac{g^2}{2} \nabla \cdot A, \qquad
    (\nabla \cdot A)_i = \textstyle\sum_j \partial_j A_{ij}.

Per unit of :math:`\ln\lambda`, :math:`\lambda = \sigma / \alpha`, in place of time, and in units of
the noise, the residual is the pure number

.. math:: \rho = \sigma\, r \Big/ \frac{\mathrm{d} \ln \lambda}{\mathrm{d} t}
    = \sigma\, r \Big/ \frac{g^2}{2 \sigma^2},

the same for all processes that differ in their time parametrisation; in component form, and for
gradients, for those that differ in their scale :math:`\alpha` too.

How it is computed
    A pass back through :math:`s` with the cotangent :math:`v` gives :math:`J^\top v`; one through
    that, with :math:`w`, gives :math:`\nabla (v^\top J w)`, which is linear in :math:`v`, so that a
    third, back to :math:`v`, gives the transpose of that map. With :math:`v = w` they are

    .. math:: \nabla (v^\top J v) \quad \text{and} \quad v^\top (\nabla^2 s_i)\, v,

    whose sums over an orthonormal basis are :math:`\nabla (\nabla \cdot s)` and :math:`\Delta s`,
    as are their means over random signs. All :math:`v` of a point are rows of one batch. No tensor
    is larger than the Jacobians of all points.

    Over a basis, the first pass brings the whole Jacobian, and :math:`\partial_t s` when it goes
    back to the time as well. With random signs, a pass with the cotangent :math:`u` brings
    :math:`J^\top u` and :math:`\langle u, \partial_t s \rangle`, and the transposes of these linear
    maps of :math:`u` are :math:`J u` and :math:`\partial_t s`, exact. PyTorch's forward mode takes
    longer, and there is no way back through its derivative of a softmax.

References:
    FP-diffusion: improving score-based diffusion models by enforcing the underlying score
    Fokker–Planck equation (Lai, Takida, Murata, Uesaka, Mitsufuji and Ermon, 2023).

    A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines
    (Hutchinson, 1990), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField, basis, evaluate
from scorefield.errors import UserError
from scorefield.fields.classes import classes_at
from scorefield.fields.gradient import differentiable, outside_inference
from scorefield.sde.base import SDE

FokkerPlanckForm = Literal["gradient", "component"]
"""The form of the residual: the gradient of a scalar, or one equation per component."""


class FokkerPlanckTerms(NamedTuple):
    r"""The terms of one form of the residual: :math:`s` and :math:`\partial_t s`; the advection
    :math:`J^\top u` or :math:`J u`; the diffusion :math:`\nabla (\nabla \cdot s)` or :math:`\Delta
    s`, one draw a probe or the exact one.
    """

    score: Float[Tensor, "batch *event"]
    time_derivative: Float[Tensor, "batch *event"]
    advection: Float[Tensor, "batch *event"]
    diffusion: Float[Tensor, "draws batch *event"]

    def residual(self, t: Float[Tensor, " batch"], sde: SDE) -> Float[Tensor, "draws batch *event"]:
        """The residual per unit of time."""
        f, g2 = _coefficients(self.score, t, sde)
        first = self.time_derivative + f * self.score - self.advection
        return first - 0.5 * g2 * self.diffusion

    def size(self, t: Float[Tensor, " batch"], sde: SDE) -> Float[Tensor, "draws batch *event"]:
        """The sum of the sizes of what cancels in the residual; rounding is proportional to it."""
        f, g2 = _coefficients(self.score, t, sde)
        first = self.time_derivative.abs() + (f * self.score).abs() + self.advection.abs()
        return first + 0.5 * g2 * self.diffusion.abs()


@outside_inference
def fokker_planck_terms(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    sde: SDE,
    forms: Sequence[FokkerPlanckForm] = ("gradient", "component"),
    probes: Float[Tensor, "draws batch *event"] | None = None,
    classes: Int[Tensor, " batch"] | None = None,
) -> dict[FokkerPlanckForm, FokkerPlanckTerms]:
    """The terms of one or both forms of the residual, from one set of derivatives.

    It takes an evaluation of ``fn`` at :math:`D` copies of the points, or as many as there are
    probes, with two passes back through it for the gradient form and three for the other or both;
    with probes, also an evaluation at the points themselves with two or three passes. The
    ``probes`` are independent random signs; the terms are exact if not given.
    """
    for form in forms:
        if form not in get_args(FokkerPlanckForm):
            raise UserError(f"the form of a residual is gradient or component, not {form!r}")
    if probes is not None and len(probes) < 1:
        raise UserError("a residual by probes needs at least one probe")
    exact, keep = probes is None, torch.is_grad_enabled()
    # A field that is itself a gradient has its derivatives only while gradients are enabled.
    with differentiable(), torch.enable_grad():
        v = basis(x) if probes is None else probes
        rows = _rows(fn, x, t, classes, v, timed=exact, turned="component" in forms)
        f, g2 = _coefficients(x, t, sde)
        u = g2 * rows.score - f * x
        time, advection = _sums(rows, u) if exact else _products(fn, x, t, classes, u, forms)
        diffusion = _diffusion(rows, forms, keep)
    found = {}
    for form in forms:
        draws = diffusion[form].reshape(v.shape)
        draws = draws.sum(dim=0, keepdim=True) if exact else draws
        terms = FokkerPlanckTerms(rows.score, time, advection[form], draws)
        found[form] = terms if keep else FokkerPlanckTerms(*(term.detach() for term in terms))
    return found


def fokker_planck_residual(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    sde: SDE,
    form: FokkerPlanckForm = "gradient",
    probes: Float[Tensor, "draws batch *event"] | None = None,
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *event"]:
    """The residual per unit of time, exact or estimated without bias; see
    :func:`fokker_planck_terms`.
    """
    terms = fokker_planck_terms(fn, x, t, sde, (form,), probes, classes)
    return terms[form].residual(t, sde).mean(dim=0)


def fokker_planck_difference(
    terms: Mapping[FokkerPlanckForm, FokkerPlanckTerms], t: Float[Tensor, " batch"], sde: SDE
) -> Float[Tensor, "draws batch *event"]:
    r"""The component form less the gradient form, :math:`-A u - \frac{g^2}{2} \nabla \cdot A`.

    It uses only the terms that differ, so that :math:`\partial_t s` does not need to cancel.
    """
    component, gradient = terms["component"], terms["gradient"]
    _, g2 = _coefficients(component.score, t, sde)
    turned = component.advection - gradient.advection
    return -turned - 0.5 * g2 * (component.diffusion - gradient.diffusion)


def per_log_noise(
    residual: Float[Tensor, "draws batch *event"], t: Float[Tensor, " batch"], sde: SDE
) -> Float[Tensor, "draws batch *event"]:
    r"""Residuals :math:`r` in time as :math:`\rho = \sigma\, r \big/ \frac{g^2}{2 \sigma^2}`."""
    sigma = sde.sigma(t)
    factor = sigma * (2 * sigma**2 / sde.diffusion_squared(t))
    return factor.reshape(-1, *(1,) * (residual.dim() - 2)) * residual


def unbiased_square(
    draws: Float[Tensor, "draws batch *event"],
) -> Float[Tensor, "batch *event"]:
    r"""Unbiased squares of numbers with independent, unbiased draws: the mean of :math:`r_k r_l`
    over :math:`k \ne l`. A single draw is exact.
    """
    count = len(draws)
    if count == 1:
        return draws[0].square()
    return (draws.sum(dim=0).square() - draws.square().sum(dim=0)) / (count * (count - 1))


class _Rows(NamedTuple):
    """One pass back, for several cotangents of each point: with copies of the points, one a
    cotangent.
    """

    x: Tensor
    cotangents: Tensor
    score: Tensor
    products: Tensor
    rates: Tensor | None


def _rows(
    fn: VectorField,
    x: Tensor,
    t: Tensor,
    classes: Tensor | None,
    v: Tensor,
    timed: bool,
    turned: bool,
) -> _Rows:
    """The first pass; ``turned`` if there is to be a third, back to the cotangents."""
    copies, batch = v.shape[:2]
    again = torch.arange(batch, device=x.device).repeat(copies)
    x, t = x[again], t[again]
    x, v = x.requires_grad_(), v.reshape(x.shape).detach().requires_grad_(turned)
    inputs = (x, t.requires_grad_()) if timed else (x,)
    score = evaluate(fn, x, t, classes_at(classes, again))
    products, *rates = _back(score, inputs, v)
    return _Rows(x, v, score[:batch], products, rates[0] if timed else None)


def _diffusion(
    rows: _Rows, forms: Sequence[FokkerPlanckForm], keep: bool
) -> dict[FokkerPlanckForm, Tensor]:
    """The second pass and the third, for each copy."""
    v, further = rows.cotangents.detach(), "component" in forms
    (slopes,) = _back(rows.products, (rows.x,), v, keep or further)
    if not further:
        return {"gradient": slopes}
    (curvatures,) = _back(slopes, (rows.cotangents,), v, keep)
    return {"gradient": slopes, "component": curvatures}


def _sums(rows: _Rows, u: Tensor) -> tuple[Tensor, dict[FokkerPlanckForm, Tensor]]:
    """The derivative in time and the advection from the rows of the Jacobian."""
    batch, dim = len(u), u.shape[1:].numel()
    flat, jacobian = u.reshape(batch, dim), rows.products.reshape(dim, batch, dim)
    assert rows.rates is not None
    return rows.rates.reshape(dim, batch).T.reshape(u.shape), {
        "gradient": (jacobian * flat.T.unsqueeze(2)).sum(dim=0).reshape(u.shape),
        "component": (jacobian * flat).sum(dim=2).T.reshape(u.shape),
    }


def _products(
    fn: VectorField,
    x: Tensor,
    t: Tensor,
    classes: Tensor | None,
    u: Tensor,
    forms: Sequence[FokkerPlanckForm],
) -> tuple[Tensor, dict[FokkerPlanckForm, Tensor]]:
    """The same from a pass back with the cotangent ``u``, and its transpose."""
    x, t = x.clone().requires_grad_(), t.clone().requires_grad_()
    u = u if u.requires_grad else u.detach().requires_grad_()
    product, rate = _back(evaluate(fn, x, t, classes), (x, t), u)
    (time,) = _back(rate, (u,), torch.ones_like(rate))
    advection: dict[FokkerPlanckForm, Tensor] = {"gradient": product}
    if "component" in forms:
        (advection["component"],) = _back(product, (u,), u)
    return time, advection


def _back(
    outputs: Tensor, inputs: tuple[Tensor, ...], cotangents: Tensor, keep: bool = True
) -> tuple[Tensor, ...]:
    """A backward pass; zeros without a graph."""
    if not outputs.requires_grad:
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(
        outputs, inputs, cotangents, create_graph=keep, materialize_grads=True
    )


def _coefficients(x: Tensor, t: Tensor, sde: SDE) -> tuple[Tensor, Tensor]:
    """The drift and the squared diffusion, to broadcast against the points."""
    shape = (-1, *(1,) * (x.dim() - 1))
    return sde.drift(t).reshape(shape), sde.diffusion_squared(t).reshape(shape)
