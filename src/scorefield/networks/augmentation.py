"""How a network receives the augmentation of a point: as a vector, which is zero for none."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.rows import RowLayer, set_rows

LABELS = 9
"""The length of the vector of an :class:`~.Augmentation`."""


class AugmentationEmbedding(RowLayer):
    r"""Adds a linear map of the augmentation labels to the embedded noise level.

    .. math:: e \mapsto e + W a .

    Labels are set for the rows of a training step (:func:`set_labels`). They are zero in evaluation
    mode, and wherever none are set: there the network is that of points without augmentation.

    Arguments:
        labels: The length of :math:`a`.
        width: The length of :math:`e`.

    Raises:
        ValueError: In use, if the labels are those of another number of rows.

    References:
        Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
        Laine, 2022), appendix F.2.
    """

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(labels, width, bias=False).weight.detach())

    def forward(self, embedding: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        labels = self._rows
        if not self.training or labels is None:
            return embedding
        if len(labels) != len(embedding):
            raise UserError(
                f"a network has augmentation labels of {len(labels)} rows, and was given "
                f"{len(embedding)}"
            )
        return embedding + F.linear(labels.to(self.weight.dtype), self.weight)


def embeddings(module: nn.Module) -> list[AugmentationEmbedding]:
    """The layers of a module that receive augmentation labels, in the order of its parts."""
    return [part for part in module.modules() if isinstance(part, AugmentationEmbedding)]


def set_labels(
    layers: list[AugmentationEmbedding], labels: Float[Tensor, "rows labels"] | None
) -> None:
    """Sets the labels of layers for all calls that follow, also in a backward pass; or none."""
    for layer in layers:
        set_rows(layer, labels)
