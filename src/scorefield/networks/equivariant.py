r"""A network of any number of atoms that is equivariant by construction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.networks.embedding import LevelEmbedding
from scorefield.networks.initial import initialize
from scorefield.networks.periodic import PeriodicFeatures
from scorefield.networks.symmetrized import check_sizes


class EquivariantMLP(nn.Module):
    r"""Messages between all pairs of atoms, then layers that see an atom and the mean of all.

    .. math::
        h_i^1 &= \frac{1}{n - 1} \sum_{j \neq i} \mathrm{SiLU}\big(A_1\,[\varphi(x_i),
            \varphi(x_j), \varphi(x_i - x_j)] + b_1 + e(c)\big) \\
        h_i^l &= \mathrm{SiLU}\Big(A_l h_i^{l-1} + B_l\,\tfrac1n \textstyle\sum_j h_j^{l-1}
            + b_l\Big), \qquad l = 2 \dots L \\
        F_i(x, c) &= A_{L+1} h_i^L,

    with a :class:`~scorefield.networks.periodic.PeriodicFeatures` :math:`\varphi` and a
    :class:`~scorefield.networks.embedding.LevelEmbedding` :math:`e`. It is equivariant,
    :math:`F(P x) = P F(x)`, and periodic; it knows where on the torus the atoms are. The first
    layer costs :math:`n^2`, the others :math:`n`, and the weights are those of any number of atoms.

    Arguments:
        shape: The event shape :math:`(n, d)`: atoms, coordinates.
        period: The period :math:`L`, or one for each of the :math:`d` coordinates.
        hidden: The width of the hidden layers.
        depth: The number :math:`L` of hidden layers; with one, an atom is moved by a sum over
            pairs only.
        harmonics: The number of harmonics of the features.
        embedding: The number of waves that the label is spread over.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size or a period is not positive.

    References:
        Deep sets (Zaheer et al., 2017), equation 4.

        Neural message passing for quantum chemistry (Gilmer et al., 2017), equations 1 and 2.
    """

    ends: Tensor

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
        self.event_shape = (atoms, dims)
        self.features = PeriodicFeatures(dims, period, harmonics)
        self.level = LevelEmbedding(embedding, hidden, hidden)
        self.pairs = nn.Linear(3 * self.features.number, hidden)
        self.layers = nn.ModuleList(_Mixing(hidden) for _ in range(depth - 1))
        pairs = [(i, j) for i in range(atoms) for j in range(atoms) if i != j] or [(0, 0)]
        self.register_buffer("ends", torch.tensor(pairs).T.contiguous(), persistent=False)
        # Without a bias: the gradient of a sum of outputs, which a potential is, has none.
        self.last = nn.Linear(hidden, dims, bias=False)
        initialize(self, seed)

    def forward(
        self, x: Float[Tensor, "batch atoms dims"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch atoms dims"]:
        batch, (atoms, _) = x.shape[0], self.event_shape
        one, other = x.index_select(1, self.ends[0]), x.index_select(1, self.ends[1])
        pairs = torch.stack((one, other, one - other), dim=2)
        messages = self.pairs(self.features(pairs).flatten(2)) + self.level(label).unsqueeze(1)
        h = F.silu(messages).reshape(batch, atoms, -1, messages.shape[-1]).mean(dim=2)
        for layer in self.layers:
            h = F.silu(layer(h))
        output: Tensor = self.last(h)
        return output


class _Mixing(nn.Linear):
    """The linear map of an atom's features and the mean of all atoms'; weights side by side."""

    def __init__(self, width: int) -> None:
        super().__init__(2 * width, width)

    def forward(
        self, h: Float[Tensor, "batch atoms features"]
    ) -> Float[Tensor, "batch atoms features"]:
        own, all_ = self.weight.chunk(2, dim=1)
        return F.linear(h, own, self.bias) + F.linear(h.mean(dim=1, keepdim=True), all_)
