r"""Score fields and their five parametrisations.

A score field is a vector field :math:`s(x, t) \approx \nabla_x \log p_t(x)` of a process
:math:`x_t = \alpha x_0 + \sigma\varepsilon`. Five quantities are affine functions of it,

.. math::
    \begin{aligned}
    \text{denoiser} \quad & \mathbb{E}[x_0 \mid x_t] = \frac{x + \sigma^2 s}{\alpha} &
    \text{noise} \quad & \mathbb{E}[\varepsilon \mid x_t] = -\sigma s \\
    \text{velocity} \quad & \frac{\mathrm{d}x}{\mathrm{d}t} = f x - \tfrac12 g^2 s &
    \text{drift} \quad & f x - g^2 s,
    \end{aligned}

the velocity being that of the probability-flow ODE and the drift that of the reverse-time SDE.
Everything downstream (samplers, likelihood, diagnostics, reports) takes a :class:`ScoreField` and
evaluates the form it needs.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equations 6 and 13.

    Tweedie's formula and selection bias (Efron, 2011), equation 1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from threading import Lock, get_ident
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.checks import check_kind
from scorefield.domain import Domain, Euclidean
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.classes import Classes, class_rows
from scorefield.fields.forms import Batch, Quantity, Times, convert
from scorefield.fields.inputs import check_batch, check_number, check_times, check_values
from scorefield.html import table
from scorefield.sde.base import SDE

_SHAPES: dict[str, Callable[[Tensor], tuple[int, ...]]] = {
    "score": lambda x: x.shape,
    "predict": lambda x: x.shape,
    "potential": lambda x: x.shape[:1],
    "jacobian": lambda x: (len(x), *2 * (x.shape[1:].numel(),)),
}
"""The shapes of what a field gives at points."""


class ScoreField(nn.Module):
    r"""Anything with a score.

    Subclasses define one method: :meth:`score`, or :meth:`predict` where other forms are computed
    with less rounding than from the score.

    Arguments:
        sde: The forward process whose marginals the field describes.
        domain: The space of :math:`x`, with the event shape. Without one, :meth:`learn_shape` sets
            it to flat space.

    Whatever a class defines of :meth:`score`, :meth:`predict`, :meth:`potential` and
    :meth:`jacobian` is called with points and times that have passed :meth:`check_inputs`, and
    gives values of the shape that belongs to the points, or there is a ``ValueError``.

    Raises:
        TypeError: If the class defines neither :meth:`score` nor :meth:`predict`.
        ValueError: If the process is not defined on the domain.
    """

    domain: Domain

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, shape in _SHAPES.items():
            # Its own, or that of a base which is no field and checks nothing.
            definer = next(c for c in cls.__mro__ if name in vars(c))
            if definer is cls or not issubclass(definer, ScoreField):
                setattr(cls, name, _checked(vars(definer)[name], shape))

    def __init__(self, sde: SDE, domain: Domain | None) -> None:
        super().__init__()
        check_kind("the process of a field", sde, SDE)
        if (type(self).score, type(self).predict) == (ScoreField.score, ScoreField.predict):
            raise TypeError(f"{type(self).__name__} must define score or predict")
        self.sde = sde
        if domain is not None:
            sde.check(domain)
            self.domain = domain

    def __getattr__(self, name: str) -> Any:
        if name == "domain":
            raise UserError(
                f"{type(self).__name__} does not know its event shape yet: give shape=, train it "
                "with fit, or evaluate it once"
            )
        return super().__getattr__(name)

    def learn_shape(self, shape: Sequence[int]) -> None:
        """Set the domain to flat space of an event shape, unless it is known already."""
        if "domain" not in vars(self):
            domain = Euclidean(tuple(shape))
            self.sde.check(domain)
            self.domain = domain

    def check_inputs(self, x: Batch, t: Times, first: float | None = None) -> None:
        r"""Check that the field can be evaluated at points and times.

        Times that are on a GPU, or part of a graph that is being compiled, are not looked at.

        Arguments:
            x: The points.
            t: Their times.
            first: The earliest time; by default 0 where the process has noise then, and
                :math:`t_{min}` elsewhere. Where it is positive, all positive times are allowed: a
                step to the clean data passes by them.

        Raises:
            ValueError: If the points are not floating-point numbers of the field's event shape; if
                there is neither one time nor one for each point; or if a time is not a real number,
                is neither positive nor ``first``, or is later than :math:`t_{max}` and than the
                time to which churn raises the noise.
        """
        name = type(self).__name__
        check_batch(name, x)
        self.learn_shape(x.shape[1:])
        if x.shape[1:] != self.domain.shape:
            raise UserError(
                f"{name} has points of shape {self.domain.shape}, got {tuple(x.shape[1:])}"
            )
        check_number(t, x.shape[0])
        check_times(name, t, self.sde, first)

    def score(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        r"""The score :math:`s(x, t)`, per unit of :math:`x`.

        Arguments:
            x: Noisy points.
            t: The time of each point, of shape ``(batch,)``, or one time for all.
            classes: The class of each point, or one for all, from 0; the unconditional score if not
                given. The number :math:`K` of classes, as a class, denotes the unconditional score
                too.

        Raises:
            ValueError: If the points or the times do not fit the field, see :meth:`check_inputs`;
                or the classes do not fit the field or the points, see :meth:`class_rows`.
        """
        return self.predict(x, t, "score", classes)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        """The field in any of its five forms; arguments and errors are those of :meth:`score`, and
        an unknown ``quantity`` is a ``ValueError``.
        """
        return convert(self.score(x, t, classes), x, t, self.sde, "score", quantity)

    def denoise(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        r"""The posterior mean :math:`\mathbb{E}[x_0 \mid x_t = x]`, in units of the data."""
        return self.predict(x, t, "denoiser", classes)

    def predict_noise(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        r"""The posterior mean :math:`\mathbb{E}[\varepsilon \mid x_t = x]` of the noise."""
        return self.predict(x, t, "noise", classes)

    def velocity(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        r"""The velocity :math:`\mathrm{d}x/\mathrm{d}t` of the probability-flow ODE."""
        return self.predict(x, t, "velocity", classes)

    def drift(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        r"""The drift :math:`f x - g^2 s` of the reverse-time SDE."""
        return self.predict(x, t, "drift", classes)

    @property
    def has_potential(self) -> bool:
        """Whether the score is by construction the gradient of :meth:`potential`."""
        return False

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        r"""A scalar :math:`\phi` with :math:`\nabla_x \phi = s`, in nats, up to a constant.

        Raises:
            TypeError: If the field has none.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no potential: its score is not a gradient"
        )

    @property
    def has_jacobian(self) -> bool:
        """Whether the Jacobian of the score is known in closed form, by :meth:`jacobian`."""
        return False

    def jacobian(
        self, x: Batch, t: Times, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        r"""The Jacobian :math:`J_{ij} = \partial s_i / \partial x_j` of the score, over the
        :math:`D` coordinates of a flattened point.

        Raises:
            TypeError: If the field does not have it in closed form.
        """
        raise UnsupportedError(f"{type(self).__name__} has no Jacobian in closed form")

    @property
    def classes(self) -> int | None:
        """The number of classes of a class-conditional field; ``None`` for others."""
        return None

    @property
    def unlabelled(self) -> bool:
        """Whether the field can be evaluated without classes."""
        return True

    def class_rows(self, classes: Classes, points: Tensor) -> Int[Tensor, " batch"] | None:
        """The class of each point, int64 on the device of the points; ``None`` without classes.

        Class-conditional fields check their classes here.

        Raises:
            ValueError: If the field has no classes, or cannot be evaluated without; if the classes
                are not integers, not as many as the points, or out of range.
        """
        return class_rows(type(self).__name__, self.classes, self.unlabelled, classes, points)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(value for _, value in self._facts())})"

    def _repr_html_(self) -> str:
        return table(type(self).__name__, self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """What the field is made of, and of which size."""
        found = [(name, _short(child)) for name, child in self.named_children()]
        found.append(("process", repr(self.sde)))
        if extra := self.extra_repr():
            found.append(("settings", extra))
        shape = self.domain.shape if "domain" in vars(self) else "unknown"
        found.append(("points", f"shape {shape}"))
        if self.classes is not None:
            found.append(("classes", f"{self.classes} classes"))
        if count := sum(p.numel() for p in self.parameters()):
            found.append(("parameters", f"{count:,} parameters"))
        return found

    def forward(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        """The score; see :meth:`score`."""
        return self.score(x, t, classes)

    def compile(self, *settings: Any, **named: Any) -> None:
        """Compile the networks of the field in place, see ``torch.nn.Module.compile``; the
        arithmetic around them is evaluated eagerly.
        """
        for part in self.children():
            part.compile(*settings, **named)


def check_field(field: object) -> None:
    """Raises ``TypeError`` unless something is a field; names the function that makes one."""
    if not isinstance(field, ScoreField):
        raise UnsupportedError(
            f"{type(field).__name__} is no score field: make one of a network with "
            "sf.wrap(net, shape=..., predicts=..., time=...), which states its convention"
        )


def _short(module: nn.Module) -> str:
    """A module in a line."""
    if isinstance(module, ScoreField):
        return repr(module)
    return f"{type(module).__name__}({module.extra_repr()})"


def _checked(
    evaluate: Callable[..., Tensor], shape: Callable[[Tensor], tuple[int, ...]]
) -> Callable[..., Tensor]:
    """An evaluation of a field that checks its points and times first, and then the shape of its
    values.
    """

    @wraps(evaluate)
    def checked(field: ScoreField, x: Tensor, t: Times, *others: Any, **named: Any) -> Tensor:
        field.check_inputs(x, t)
        values = evaluate(field, x, t, *others, **named)
        check_values(type(field).__name__, values, shape(x))
        return values

    return checked


_held: dict[nn.Module, tuple[int, bool]] = {}
"""How many contexts hold a module in evaluation mode, and its mode before the first."""

_trained: dict[nn.Module, int] = {}
"""The thread that trains a module."""

_lock = Lock()


@contextmanager
def evaluation_mode(field: nn.Module) -> Iterator[None]:
    """Puts every module of the field into evaluation mode, and each back as it was.

    Several threads may hold a module at once: the last to leave puts it back. A field that is
    trained in one thread is in use there; another thread evaluates a copy of it.

    Raises:
        ValueError: If another thread trains the field.
    """
    modules, thread = list(field.modules()), get_ident()
    with _lock:
        if any(_trained.get(module, thread) != thread for module in modules):
            raise UserError("the field is trained in another thread: evaluate a copy of it here")
        for module in modules:
            holders, mode = _held.get(module, (0, module.training))
            _held[module] = holders + 1, mode
        field.eval()
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                holders, mode = _held.pop(module)
                if holders > 1:
                    _held[module] = holders - 1, mode
                else:
                    module.training = mode


@contextmanager
def training_mode(field: nn.Module) -> Iterator[None]:
    """Puts every module of the field into training mode, and into evaluation mode afterwards.

    Raises:
        ValueError: If another thread trains or evaluates the field.
    """
    modules = list(field.modules())
    with _lock:
        if any(module in _trained or module in _held for module in modules):
            raise UserError("the field is in use: train a copy of it here")
        _trained.update(dict.fromkeys(modules, get_ident()))
        field.train()
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                del _trained[module]
            field.eval()
