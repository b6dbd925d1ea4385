r"""Any network with a stated convention as a score field.

A convention is what the network predicts, how it receives the noise level, and the forward process
of its training. Nothing of it can be read from the network itself, and each mistake in it gives
another field: every part is named by the user, or there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from scorefield.checks import check_count, check_kind, kind_of, shown
from scorefield.errors import UserError, hint, out_of_memory
from scorefield.fields.base import ScoreField
from scorefield.fields.labels import (
    LOG_NOISE,
    Label,
    ReversedTimeLabel,
    SigmaLabel,
    TimeLabel,
)
from scorefield.fields.parametrization import (
    DenoiserPrediction,
    NoisePrediction,
    Parametrization,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
)
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.watch import check_derivatives, outputs_of
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM
from scorefield.sde.interpolant import RectifiedFlow
from scorefield.sde.steps import DiscreteVP
from scorefield.sde.tables import Betas

_PREDICTIONS: dict[str, Callable[[Label], Parametrization]] = {
    "noise": NoisePrediction,
    "denoiser": DenoiserPrediction,
    "v": VPrediction,
    "velocity": VelocityPrediction,
    "score": ScorePrediction,
}
_TIMES: dict[str, Label] = {
    "t": TimeLabel(1.0),
    "1-t": ReversedTimeLabel(),
    "sigma": SigmaLabel(),
    "log_sigma": LOG_NOISE,
}
_ELSEWHERE = {
    "epsilon": "noise",
    "eps": "noise",
    "x0": "denoiser",
    "sample": "denoiser",
    "v_prediction": "v",
    "flow": "velocity",
}
"""What other code bases call the predictions."""
_STEPS = 1_000_000
"""The most steps of a table, which is kept in memory."""


def wrap(
    net: Callable[..., Tensor],
    *,
    shape: Sequence[int] | None = None,
    predicts: str | Parametrization | None = None,
    time: str | Label | None = None,
    sde: SDE | None = None,
    betas: Betas | Sequence[float] | Tensor | None = None,
    classes: int | None = None,
    unlabelled: bool = False,
    learned_variance: bool = False,
) -> PreconditionedField:
    r"""Make a score field of a network with a stated convention.

    The network is called as ``net(x, label)`` with :math:`x_t = \alpha x_0 + \sigma\varepsilon` of
    shape ``(batch, *shape)`` and labels of shape ``(batch,)``, both in the dtype of its parameters;
    with classes, as ``net(x, label, classes)``. It is called to check what it returns.

    Arguments:
        net: The network, or a function; one that fails in float64, as with weights of its own in
            float32, is given float32 always.
        shape: The shape of a point, as in ``(3, 32, 32)``.
        predicts: ``noise`` :math:`\varepsilon`, ``denoiser`` :math:`x_0`, ``v``
            :math:`\alpha\varepsilon - \sigma x_0`, ``velocity``, the derivative of :math:`x_t` in
            time (in ``1-t`` where that is the label), or ``score``; or a :class:`~.Parametrization`
            with its own label, such as :class:`~.EDMScaling`, for a network with a scaled input.
        time: The label: ``t`` itself; ``index:N``, the index :math:`t (N - 1)` of :math:`N` steps;
            ``sigma``, the standard deviation of the noise; ``log_sigma``, :math:`\frac14
            \ln(\sigma / \alpha)`, which is :math:`c_{noise}` of EDM; ``1-t`` where the data are at
            time 1, as in flow matching; or a :class:`~.Label`.
        sde: The forward process of its training. Without one, that of the table ``betas``;
            otherwise :class:`~.RectifiedFlow` for a velocity, and :class:`~.EDM` for the labels
            ``sigma`` and ``log_sigma``.
        betas: The table of the steps ``index:N``: a name, see :func:`~.beta_table`, with rates of
            :math:`0.1 / N` to :math:`20 / N` (for 1000 steps, 0.0001 to 0.02), or the numbers.
        classes: The number :math:`K` of classes of a class-conditional network.
        unlabelled: Whether class :math:`K` stands for no class.
        learned_variance: Whether the network has :math:`2C` channels, of which the first
            :math:`C` are the prediction.

    Raises:
        ValueError: If a part of the convention is missing, unknown, or does not fit another; if the
            network does not give a prediction of the shape of the points, is in training mode and
            draws at random, or has no derivatives.

    Example:
        >>> field = sf.wrap(net, shape=(3, 32, 32), predicts="noise", time="index:1000",
        ...                 betas="linear")
        >>> x = sf.Heun(18).sample(field, 16)
    """
    if not isinstance(predicts, Parametrization):
        _check_name("predicts", predicts, _PREDICTIONS)
    if shape is None:
        raise UserError("wrap: shape is missing: the shape of one point, as in shape=(3, 32, 32)")
    _check_given(net, shape, sde, classes)
    _check_flags(classes, unlabelled=unlabelled, learned_variance=learned_variance)
    parametrization, levels = _parametrization(predicts, time)
    label = getattr(parametrization, "label", None)
    process = _process(sde, betas, predicts, label, levels)
    reverse = predicts == "velocity" and isinstance(label, ReversedTimeLabel)
    network = Wrapped(net, tuple(shape), classes, unlabelled, learned_variance, reverse)
    field = PreconditionedField(network, process, parametrization=parametrization, shape=shape)
    _check_network(field, network)
    return field


class Wrapped(nn.Module):
    """A network in the convention of a backbone."""

    def __init__(
        self,
        net: Callable[..., Tensor],
        event_shape: tuple[int, ...],
        classes: int | None,
        unlabelled: bool,
        learned_variance: bool,
        reverse: bool,
    ) -> None:
        super().__init__()
        self.net, self.event_shape = net, event_shape
        self.classes, self.unlabelled = classes, unlabelled or classes is None
        self.learned_variance, self.reverse = learned_variance, reverse
        # That of the parameters of a module; a function may hold some that nobody sees.
        self.only: torch.dtype | None = None
        # The parts of the network stay as they are.
        self.training = net.training if isinstance(net, nn.Module) else False

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        if self.classes is not None and classes is None:
            classes = torch.full((x.shape[0],), self.classes, dtype=torch.int64, device=x.device)
        if self.only is not None:
            x, label = x.to(self.only), label.to(self.only)
        output = self.net(x, label, *(() if classes is None else (classes,)))
        shape = (len(x), *self.event_shape)
        if self.learned_variance:
            shape = (len(x), 2 * self.event_shape[0], *self.event_shape[1:])
        if not isinstance(output, Tensor) or output.shape != shape:
            raise UserError(
                f"{_name(self.net)} gives {kind_of(output)}, it must give a tensor of shape {shape}"
            )
        if self.learned_variance:
            output = output[:, : self.event_shape[0]]
        return -output if self.reverse else output


def _check_given(net: object, shape: object, sde: SDE | None, classes: int | None) -> None:
    """Raises ``ValueError`` for arguments of the wrong kind."""
    if isinstance(net, ScoreField):
        raise UserError(f"wrap: {type(net).__name__} is a field already")
    if isinstance(net, type) or not callable(net):
        given = f"the class {net.__name__}" if isinstance(net, type) else kind_of(net)
        raise UserError(f"wrap: net must be a module or a function, got {given}")
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise UserError(f"wrap: shape must be as in (3, 32, 32), got {shown(shape)}")
    if sde is not None:
        check_kind("wrap: sde", sde, SDE)
    if classes is not None:
        check_count("wrap: classes", classes)


def _check_flags(classes: int | None, **flags: object) -> None:
    for name, given in flags.items():
        if not isinstance(given, bool):
            raise UserError(f"wrap: {name} must be True or False, got {shown(given)}")
    if flags["unlabelled"] and classes is None:
        raise UserError("wrap: unlabelled is for a network with classes: give their number")


def _parametrization(
    predicts: str | Parametrization | None, time: str | Label | None
) -> tuple[Parametrization, int | None]:
    """A parametrisation, and the number of steps that its label counts."""
    if isinstance(predicts, Parametrization):
        if time is not None:
            raise UserError("wrap: a parametrisation has its own label: leave out time")
        return predicts, None
    label, levels = _label(time)
    return _PREDICTIONS[str(predicts)](label), levels


def _label(time: str | Label | None) -> tuple[Label, int | None]:
    """A label, and the number of steps that it counts."""
    if isinstance(time, Label):
        return time, None
    if isinstance(time, str) and time.startswith("index:"):
        count = time.removeprefix("index:")
        if not count.isdecimal() or len(count) > 9 or not 2 <= int(count) <= _STEPS:
            raise UserError(
                f"wrap: time is {shown(time)}, which must be as in 'index:1000', from 2 to "
                f"{_STEPS:,} steps"
            )
        return TimeLabel(int(count) - 1), int(count)
    _check_name("time", time, {**_TIMES, "index:N": None})
    return _TIMES[str(time)], None


def _process(
    sde: SDE | None,
    betas: Betas | Sequence[float] | Tensor | None,
    predicts: str | Parametrization | None,
    label: Label | None,
    levels: int | None,
) -> SDE:
    if betas is not None:
        if sde is not None:
            raise UserError("wrap: give sde or betas, not both")
        if levels is None:
            raise UserError("wrap: betas need the number of their steps: give time='index:N'")
        sde = DiscreteVP(betas=betas, levels=levels)
    if isinstance(sde, DiscreteVP) and levels not in (None, sde.levels):
        raise UserError(f"wrap: time counts {levels} steps, the table has {sde.levels}")
    if sde is not None:
        if sde.t_max > 1 and isinstance(label, TimeLabel | ReversedTimeLabel):
            raise UserError(
                f"wrap: this label is for a time from 0 to 1, that of {type(sde).__name__} goes to "
                f"{sde.t_max:g}; take 'sigma' or 'log_sigma'"
            )
        return sde
    if predicts == "velocity":
        return RectifiedFlow()
    if label in (_TIMES["sigma"], _TIMES["log_sigma"]):
        return EDM()
    raise UserError(
        "wrap: the forward process of its training is missing: give sde=, as in sde=sf.VP(), or, "
        "with time='index:N' the table betas=, as in betas='linear'"
    )


def _check_name(what: str, given: object, known: Mapping[str, object]) -> None:
    if given is None:
        raise UserError(f"wrap: {what} is missing, one of {', '.join(known)}")
    if not isinstance(given, str) or given not in known:
        other = _ELSEWHERE.get(str(given)) if what == "predicts" else None
        near = hint(given, known, "those known") if other is None else f"it is {other!r} here"
        raise UserError(f"wrap: {what} is {shown(given)}; {near}")


def _check_network(field: PreconditionedField, network: Wrapped) -> None:
    """Raises ``ValueError`` unless a network can be evaluated, and gives what it should."""
    name, shape = _name(network.net), network.event_shape
    for part in network.modules():
        draws = isinstance(part, _DropoutNd) and part.p > 0
        if part.training and (draws or isinstance(part, _BatchNorm)):
            raise UserError(
                f"wrap: {name} is in training mode, where its {type(part).__name__} depends on "
                "chance or on the batch: call its eval() first"
            )
    like = next(iter(network.parameters()), torch.zeros(()))
    classes = None if network.unlabelled else 0
    t = 0.5 * (field.sde.t_min + field.sde.t_max)
    try:
        x = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
        x[1] = 1
        with torch.enable_grad(), outputs_of((network,)) as outputs:
            field.predict_noise(x.requires_grad_(), t, classes)
        if not isinstance(network.net, nn.Module):
            try:
                with torch.no_grad():
                    field.predict_noise(x.double(), t, classes)
            except RuntimeError:
                network.only = x.dtype
    except UserError as error:
        double = f"of shape {(2, 2 * shape[0], *shape[1:])}," if shape else "of no shape"
        half = ": with learned_variance=True the first half of its channels"
        raise UserError(f"wrap: {error}{half if double in str(error) else ''}") from None
    except Exception as error:
        if out_of_memory(error):
            raise UserError(f"wrap: memory does not suffice for points of shape {shape}") from error
        raise UserError(
            f"wrap: {name} fails on points of shape {(2, *shape)} and a label for each, "
            f"{kind_of(torch.zeros(2, dtype=like.dtype))}: {' '.join(str(error).split())}"
        ) from error
    check_derivatives(name, outputs)


def _name(net: object) -> str:
    return type(net).__name__ if isinstance(net, nn.Module) else getattr(net, "__name__", "net")
