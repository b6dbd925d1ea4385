r"""Networks of atoms on a torus: periodic, and equivariant under permutations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, permutations

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

_MOST_ATOMS = 6


class PeriodicFeatures(nn.Module):
    r"""Cosines and sines of coordinates of a torus, the same at both ends of a period.

    .. math:: \varphi(x) = \big[\cos(2\pi k x_a / L_a),\; \sin(2\pi k x_a / L_a)\big],
        \qquad a = 1 \dots d, \quad k = 1 \dots K.

    With one harmonic they tell all points of the torus apart already; more let a network of
    the same size bend more sharply.

    Arguments:
        dims: The number :math:`d` of coordinates.
        period: The period :math:`L`, or one for each coordinate.
        harmonics: The number :math:`K` of harmonics.

    Raises:
        ValueError: If a period is not positive and finite or their number is not :math:`d`, or
            there is no harmonic.
    """

    def __init__(self, dims: int, period: float | Sequence[float], harmonics: int = 1) -> None:
        super().__init__()
        periods = (period,) * dims if isinstance(period, int | float) else tuple(period)
        if len(periods) != dims:
            raise UserError(f"{dims} coordinates need one period or {dims}, got {len(periods)}")
        if not all(math.isfinite(length) and length > 0 for length in periods):
            raise UserError(f"a period is positive and finite, got {period}")
        check_sizes("periodic features", harmonics=harmonics)
        # Numbers, not a buffer: a buffer would be rounded with the weights, and a network in
        # double precision would then be periodic in single precision only.
        self.waves = tuple(
            tuple(math.tau * k / float(length) for k in range(1, harmonics + 1))
            for length in periods
        )

    @property
    def number(self) -> int:
        """The number :math:`2 d K` of features of a point."""
        return 2 * sum(map(len, self.waves))

    def forward(self, x: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch features"]:
        # A graph holds what it needs, and cannot look into a cache.
        table = _table if torch.compiler.is_compiling() else _kept_table
        phase = (x.unsqueeze(-1) * table(self.waves, x.dtype, x.device)).flatten(-2)
        return torch.cat((phase.cos(), phase.sin()), dim=-1)


def _table(
    waves: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    # The first to ask may do so in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        return torch.tensor(waves, dtype=dtype, device=device)


_kept_table = lru_cache(maxsize=64)(_table)


class _AtomsMLP(Network, ABC):
    """What networks of several atoms have in common; subclasses make their layers."""

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
        name = type(self).__name__
        if len(shape) != 2:
            raise UserError(f"an event of {name} has a shape (atoms, dims), got {tuple(shape)}")
        atoms, dims = map(int, shape)
        check_sizes(name, atoms=atoms, dims=dims, hidden=hidden, depth=depth)
        self.event_shape = (atoms, dims)
        self.features = PeriodicFeatures(dims, period, harmonics)
        self.level = LevelEmbedding(embedding, hidden, hidden)
        self._make_layers(hidden, depth)
        initialize(self, seed)

    @abstractmethod
    def _make_layers(self, hidden: int, depth: int) -> None:
        """Makes so many hidden layers of a width, and the last one."""


class SymmetrizedMLP(_AtomsMLP):
    r"""The mean over permutations of a multilayer perceptron of all atoms.

    .. math:: F(x, c) = \frac{1}{n!} \sum_{P \in S_n} P^{-1} f(P x, c),

    where :math:`f` sees the periodic features :math:`\varphi` of all atoms in a row,

    .. math::
        h_1 &= \mathrm{SiLU}(A_1 \varphi(x) + b_1 + e(c)) \\
        h_l &= \mathrm{SiLU}(A_l h_{l-1} + b_l), \qquad l = 2 \dots L \\
        f(x, c) &= A_{L+1} h_L,

    with :class:`PeriodicFeatures` :math:`\varphi` and a
    :class:`~.LevelEmbedding` :math:`e`. It is equivariant,
    :math:`F(P x) = P F(x)`, and periodic; it knows where on the torus the atoms are. All
    :math:`n!` terms are computed in one call; for more atoms than six there is
    :class:`EquivariantMLP`.

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

    def _make_layers(self, hidden: int, depth: int) -> None:
        atoms, dims = self.event_shape
        if atoms > _MOST_ATOMS:
            raise UserError(
                f"a SymmetrizedMLP averages over all permutations of at most {_MOST_ATOMS} atoms, "
                f"got {atoms}: take an EquivariantMLP"
            )
        widths = [atoms * self.features.number] + [hidden] * depth
        self.layers = nn.ModuleList(RowLinear(n, m) for n, m in pairwise(widths))
        # Without a bias: the gradient of a sum of outputs, which a potential is, has none.
        self.last = nn.Linear(hidden, atoms * dims, bias=False)
        # All P x in a row, and which places of all f(P x) in a row make the P^-1 f(P x).
        order = torch.tensor(list(permutations(range(atoms))))
        inverse = order.argsort(dim=1) + atoms * torch.arange(len(order)).unsqueeze(1)
        self.register_buffer("order", order.flatten(), persistent=False)
        self.register_buffer("inverse", inverse.flatten(), persistent=False)

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


class EquivariantMLP(_AtomsMLP):
    r"""Messages between all pairs of atoms, then layers that see an atom and the mean of all.

    .. math::
        h_i^1 &= \frac{1}{n - 1} \sum_{j \neq i} \mathrm{SiLU}\big(A_1\,[\varphi(x_i),
            \varphi(x_j), \varphi(x_i - x_j)] + b_1 + e(c)\big) \\
        h_i^l &= \mathrm{SiLU}\Big(A_l h_i^{l-1} + B_l\,\tfrac1n \textstyle\sum_j h_j^{l-1}
            + b_l\Big), \qquad l = 2 \dots L \\
        F_i(x, c) &= A_{L+1} h_i^L,

    with the same :math:`\varphi` and :math:`e` as :class:`SymmetrizedMLP`. It is equivariant,
    :math:`F(P x) = P F(x)`, and periodic; it knows where on the torus the atoms are. The first
    layer costs :math:`n^2`, the others :math:`n`, and the weights are those of any number of atoms.

    The arguments are those of :class:`SymmetrizedMLP`; with ``depth`` 1, an atom is moved by a sum
    over pairs only.

    Raises:
        ValueError: If a size or a period is not positive.

    References:
        Deep sets (Zaheer et al., 2017), equation 4.

        Neural message passing for quantum chemistry (Gilmer et al., 2017), equations 1 and 2.
    """

    ends: Tensor

    def _make_layers(self, hidden: int, depth: int) -> None:
        atoms, dims = self.event_shape
        self.pairs = RowLinear(3 * self.features.number, hidden)
        self.layers = nn.ModuleList(_Mixing(hidden) for _ in range(depth - 1))
        pairs = [(i, j) for i in range(atoms) for j in range(atoms) if i != j] or [(0, 0)]
        self.register_buffer("ends", torch.tensor(pairs).T.contiguous(), persistent=False)
        # Without a bias: the gradient of a sum of outputs, which a potential is, has none.
        self.last = nn.Linear(hidden, dims, bias=False)

    def forward(
        self, x: Float[Tensor, "batch atoms dims"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch atoms dims"]:
        one, other = x.index_select(1, self.ends[0]), x.index_select(1, self.ends[1])
        pairs = torch.stack((one, other, one - other), dim=2)
        messages = self.pairs(self.features(pairs).flatten(2)) + self.level(label).unsqueeze(1)
        h = F.silu(messages).unflatten(1, (self.event_shape[0], -1)).mean(dim=2)
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
        return F.linear(h, own) + F.linear(h.mean(dim=1), all_, self.bias).unsqueeze(1)
