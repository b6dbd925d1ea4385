r"""A network of particles that turns with them: E(n)-equivariant messages between all pairs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.checks import check_sizes
from scorefield.networks.embedding import LevelEmbedding
from scorefield.networks.initial import initialize
from scorefield.networks.linear import RowLinear
from scorefield.networks.network import Network
from scorefield.relative import particle_positions, relative_coordinates


class EGNN(Network):
    r"""Messages by distances, which move the particles along their differences.

    .. math::
        m_{ij}^l &= \mathrm{SiLU}\big(B_l\,\mathrm{SiLU}(A_l\,[h_i^l, h_j^l,
            \ln(1 + |x_i^l - x_j^l|^2), \ln(1 + |x_i^0 - x_j^0|^2)] + a_l) + b_l\big) \\
        x_i^{l+1} &= x_i^l + \frac{1}{n - 1} \sum_{j \ne i}
            \frac{x_i^l - x_j^l}{\sqrt{1 + |x_i^l - x_j^l|^2}}\;
            w_l \cdot \mathrm{SiLU}(C_l\,m_{ij}^l + c_l) \\
        h_i^{l+1} &= h_i^l + F_l\,\mathrm{SiLU}\Big(E_l\,\big[h_i^l,
            \tfrac{1}{n - 1} \textstyle\sum_{j \ne i} m_{ij}^l\big] + e_l\Big) + f_l ,
            \qquad l = 0 \dots L - 1 ,

    with :math:`h_i^0` a :class:`~.LevelEmbedding` of the label. The output is the displacement
    :math:`H (x^L - x^0)` in the relative coordinates :math:`y = H x` of
    :mod:`scorefield.relative`, in which points are given: it turns and reflects with the particles,
    is permuted with them, and does not see where their centre of mass is. The logarithm and the
    root are not in the source: with squares in their place, outputs grow as a power of the inputs,
    one that increases with every layer.

    Arguments:
        shape: The event shape :math:`(n - 1, d)`: one less than the particles, dimensions.
        hidden: The width of messages and features.
        depth: The number :math:`L` of layers.
        embedding: The number of waves that the label is spread over.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If the shape is not that of particles, or a size is not positive.

    References:
        E(n) equivariant graph neural networks (Satorras, Hoogeboom and Welling, 2021, arXiv
        2102.09844), equations 3 to 6.
    """

    ends: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        hidden: int = 64,
        depth: int = 3,
        embedding: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise UserError(
                f"an event of EGNN has a shape (particles - 1, dims), got {tuple(shape)}"
            )
        others, dims = map(int, shape)
        check_sizes("EGNN", particles=others, dims=dims, hidden=hidden, depth=depth)
        self.event_shape = (others, dims)
        self.level = LevelEmbedding(embedding, hidden, hidden)
        # The features of the last layer move nothing.
        self.layers = nn.ModuleList(_Layer(hidden, k + 1 == depth) for k in range(depth))
        n = others + 1
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        self.register_buffer("ends", torch.tensor(pairs).T.contiguous(), persistent=False)
        initialize(self, seed)

    def forward(
        self, x: Float[Tensor, "batch others dims"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch others dims"]:
        start = places = particle_positions(x)
        h = self.level(label).unsqueeze(1).expand(-1, self.event_shape[0] + 1, -1)
        first = _lengths(_apart(start, self.ends)).log()
        for layer in self.layers:
            places, h = layer(places, h, first, self.ends)
        return relative_coordinates(places - start)


class _Layer(nn.Module):
    """The maps of one layer: of messages, of moves by them, and of features, but for the last."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        # The first map of messages is a sum of maps of the ends and of the distances.
        self.ends = RowLinear(width, 2 * width, bias=False)
        self.distances = RowLinear(2, width)
        self.second = RowLinear(width, width)
        self.moves = nn.Sequential(
            RowLinear(width, width), nn.SiLU(), RowLinear(width, 1, bias=False)
        )
        self.update = (
            None
            if last
            else nn.Sequential(RowLinear(2 * width, width), nn.SiLU(), RowLinear(width, width))
        )

    def forward(
        self, places: Tensor, h: Tensor, first: Tensor, ends: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The places and features after the layer."""
        apart, each = _apart(places, ends), (places.shape[1], -1)
        square = _lengths(apart)
        own, other = self.ends(h).chunk(2, dim=2)
        both = own.index_select(1, ends[0]) + other.index_select(1, ends[1])
        lengths = self.distances(torch.cat((square.log(), first), dim=2))
        messages = F.silu(self.second(F.silu(both + lengths)))
        moves = apart * square.rsqrt() * self.moves(messages)
        places = places + moves.unflatten(1, each).mean(dim=2)
        if self.update is not None:
            received = messages.unflatten(1, each).mean(dim=2)
            h = h + self.update(torch.cat((h, received), dim=2))
        return places, h


def _apart(places: Tensor, ends: Tensor) -> Tensor:
    """The differences of all ordered pairs."""
    return places.index_select(1, ends[0]) - places.index_select(1, ends[1])


def _lengths(apart: Tensor) -> Tensor:
    """One and the squares of the distances."""
    return 1 + apart.square().sum(dim=2, keepdim=True)
