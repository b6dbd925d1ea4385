"""Fields of points whose class is known.

A field that knows classes is asked for one of them by
:meth:`~scorefield.fields.base.ScoreField.given`. The answer is a field with the same weights, whose
network is told the classes in every call.

Where each point has a class of its own, a field is bound to a batch. It may be evaluated at that
batch, or at several copies of it one after the other, which is how Jacobians and divergences ask.

References:
    Classifier-free diffusion guidance (Ho and Salimans, 2022), section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.errors import UnsupportedError, UserError


class ClassBackbone(nn.Module):
    """A backbone that is told the classes of its points.

    The backbone is shared and not copied; the classes are no part of the weights.

    Arguments:
        backbone: A module called as ``backbone(x, label, classes)`` with int64 classes from 0,
            where its attribute ``classes``, the number of classes, stands for no class, unless
            its attribute ``unlabelled`` is false.
        classes: The class of all points, or of each point of a batch.

    Raises:
        TypeError: If the backbone knows no classes.
        ValueError: If the classes are not integers, there is none, or one is out of range.
    """

    index: Tensor
    network: nn.Module

    def __init__(self, backbone: nn.Module, classes: int | Tensor) -> None:
        super().__init__()
        if isinstance(backbone, ClassBackbone):
            backbone = backbone.network
        known = getattr(backbone, "classes", None)
        if known is None:
            raise UnsupportedError(f"{type(backbone).__name__} knows no classes")
        self.network = backbone
        self.classes: int = known
        count = known + bool(getattr(backbone, "unlabelled", True))
        self.register_buffer("index", checked(classes, count, backbone), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch ..."], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        output: Tensor = self.network(x, label, classes_of(x, self.index))
        return output


def checked(
    classes: int | Int[Tensor, " batch"], count: int, near: nn.Module
) -> Int[Tensor, " rows"]:
    """Classes as a row of int64.

    Arguments:
        classes: The class of all points, or of each.
        count: The number of classes that there are.
        near: The module on whose device they are put.

    Raises:
        ValueError: If the classes are not integers, there is none, or one is not below ``count``.
    """
    integral = not isinstance(classes, bool) and isinstance(classes, int | Tensor)
    if isinstance(classes, Tensor):
        kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        integral = classes.dtype in kinds and classes.dim() <= 1 and classes.numel() > 0
    if not integral:
        said = repr(classes)
        if isinstance(classes, Tensor):
            said = f"{classes.dtype} of shape {tuple(classes.shape)}"
        raise UserError(f"classes must be an integer, or a row of at least one, got {said}")
    ends = classes.aminmax() if isinstance(classes, Tensor) else (classes, classes)
    low, high = map(int, ends)
    if low < 0 or high >= count:
        raise UserError(f"classes must lie in 0 … {count - 1}, got {low if low < 0 else high}")
    index = torch.as_tensor(classes).reshape(-1).long()
    return index.to(next((p.device for p in near.parameters()), index.device))


def classes_of(x: Float[Tensor, "batch ..."], index: Int[Tensor, " rows"]) -> Int[Tensor, " batch"]:
    """The class of each point: copies of a batch have its classes again and again.

    Raises:
        ValueError: If the points are not whole copies of the batch that the classes belong to.
    """
    index, n = index.to(x.device), x.shape[0]
    if len(index) == 1:
        return index.expand(n)
    if n % len(index):
        raise UserError(
            f"classes of {len(index)} points do not fit {n} points: a field is evaluated at the "
            "batch whose classes it was given, or at copies of it"
        )
    return index.repeat(n // len(index))


def part(index: Int[Tensor, " rows"], rows: Int[Tensor, " part"]) -> Int[Tensor, " _"]:
    """The classes of some points of a batch; one class is that of all."""
    return index if len(index) == 1 else index[rows]
