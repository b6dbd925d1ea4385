r"""A noise-conditioned multilayer perceptron for vectors."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.networks.checks import check_sizes
from scorefield.networks.embedding import ClassEmbedding, LevelEmbedding, embedded
from scorefield.networks.initial import initialize
from scorefield.networks.network import Network


class MLP(Network):
    r"""A multilayer perceptron of a point and a noise label.

    .. math::
        h_1 &= \mathrm{SiLU}(A_1 x + b_1 + e(c)) \\
        h_l &= \mathrm{SiLU}(A_l h_{l-1} + b_l), \qquad l = 2 \dots L \\
        F(x, c) &= A_{L+1} h_L + b_{L+1},

    where :math:`e(c)` is a :class:`~.LevelEmbedding`, plus the vector
    of the point's class where the network knows classes.

    Arguments:
        dim: The number :math:`D` of coordinates.
        hidden: The width of the hidden layers.
        depth: The number :math:`L` of hidden layers.
        embedding: The number of waves that the label is spread over.
        outputs: The number of outputs; :math:`D` by default. Where it is given, the last layer
            has no bias: such outputs are summed to a potential, a constant in a potential has
            no gradient, and a parameter without gradient stops distributed training.
        classes: The number of classes, if the network is to know them.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 128,
        depth: int = 3,
        embedding: int = 64,
        outputs: int | None = None,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes("an MLP", dim=dim, hidden=hidden, depth=depth)
        if outputs is not None:
            check_sizes("an MLP", outputs=outputs)
        self.event_shape = (dim,)
        self.classes = classes
        self.level = LevelEmbedding(embedding, hidden, hidden)
        self.class_embedding = None if classes is None else ClassEmbedding(classes, hidden)
        widths = [dim] + [hidden] * depth
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        self.last = nn.Linear(hidden, outputs or dim, bias=outputs is None)
        initialize(self, seed)

    def forward(
        self,
        x: Float[Tensor, "batch dim"],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        h = embedded(self.level(label), self.class_embedding, classes)
        for k, layer in enumerate(self.layers):
            h = F.silu(layer(x) + h if k == 0 else layer(h))
        output: Tensor = self.last(h)
        return output
