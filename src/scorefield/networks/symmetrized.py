r"""A multilayer perceptron of several atoms, averaged over their permutations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.embedding import LevelEmbedding
from scorefield.networks.initial import initialize
from scorefield.networks.periodic import PeriodicFeatures

_MOST_ATOMS = 6


class SymmetrizedMLP(nn.Module):
    r"""The mean over permutations of a multilayer perceptron of all atoms.

    .. math:: F(x, c) = \frac{1}{n!} \sum_{P \in S_n} P^{-1} f(P x, c),

    where :math:`f` sees the periodic features :math:`\varphi` of all atoms in a row,

    .. math::
        h_1 &= \mathrm{SiLU}(A_1 \varphi(x) + b_1 + e(c)) \\
        h_l &= \mathrm{SiLU}(A_l h_{l-1} + b_l), \qquad l = 2 \dots L \\
        f(x, c) &= A_{L+1} h_L,

    with a :class:`~scorefield.networks.periodic.PeriodicFeatures` :math:`\varphi` and a
    :class:`~scorefield.networks.embedding.LevelEmbedding` :math:`e`. It is equivariant,
    :math:`F(P x) = P F(x)`, and periodic; it knows where on the torus the atoms are. All
    :math:`n!` terms are computed in one call; for more atoms than six there is
    :class:`~scorefield.networks.equivariant.EquivariantMLP`.

    Arguments:
        shape: The event shape :math:`(n, d)`: atoms, coordinates.
        period: The period :math:`L`, or one for each of the :math:`d` coordinates.
        hidden: The width of the hidden layers.
        depth: The number :math:`L` of hidden layers.
        harmonics: The number of harmonics of the features.
        embedding: The number of waves that the label is spread over.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size or a period is not positive, or there are more than six atoms.

    References:
        Janossy pooling: learning deep permutation-invariant functions for variable-size inputs
        (Murphy, Srinivasan, Rao and Ribeiro, 2019), equation 1.
    """

    order: Tensor
    inverse: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        period: float | Sequence[float] = 1.0,
        hidden: int = 64,
        depth: int = 3,
        harmonics: int = 1,
        embedding: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        atoms, dims = check_sizes(type(self).__name__, shape, hidden, depth)
        if atoms > _MOST_ATOMS:
            raise UserError(
                f"a SymmetrizedMLP averages over all permutations of at most {_MOST_ATOMS} atoms, "
                f"got {atoms}: take an EquivariantMLP"
            )
        self.event_shape = (atoms, dims)
        self.features = PeriodicFeatures(dims, period, harmonics)
        self.level = LevelEmbedding(embedding, hidden, hidden)
        widths = [atoms * self.features.number] + [hidden] * depth
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        # Without a bias: the gradient of a sum of outputs, which a potential is, has none.
        self.last = nn.Linear(hidden, atoms * dims, bias=False)
        # All P x in a row, and which places of all f(P x) in a row make the P^-1 f(P x).
        order = torch.tensor(list(permutations(range(atoms))))
        inverse = order.argsort(dim=1) + atoms * torch.arange(len(order)).unsqueeze(1)
        self.register_buffer("order", order.flatten(), persistent=False)
        self.register_buffer("inverse", inverse.flatten(), persistent=False)
        initialize(self, seed)

    def forward(
        self, x: Float[Tensor, "batch atoms dims"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch atoms dims"]:
        batch, atoms, dims = x.shape
        terms = len(self.order) // atoms
        features = self.features(x).index_select(1, self.order)
        h = features.reshape(batch, terms, -1)
        level = self.level(label).unsqueeze(1)
        for k, layer in enumerate(self.layers):
            h = F.silu(layer(h) + level if k == 0 else layer(h))
        output = self.last(h).reshape(batch, terms * atoms, dims)
        return output.index_select(1, self.inverse).reshape(batch, terms, atoms, dims).mean(dim=1)


def check_sizes(name: str, shape: Sequence[int], hidden: int, depth: int) -> tuple[int, int]:
    """The numbers of atoms and of coordinates of each.

    Raises:
        ValueError: If the shape is not of two lengths, or a size is not positive.
    """
    if len(shape) != 2:
        raise UserError(f"an event of {name} has a shape (atoms, dims), got {tuple(shape)}")
    atoms, dims = map(int, shape)
    for what, size in {"atoms": atoms, "dims": dims, "hidden": hidden, "depth": depth}.items():
        if size < 1:
            raise UserError(f"{name} needs {what} >= 1, got {size}")
    return atoms, dims
