r"""Which noise the points of a batch are mixed with.

Drawn independently, the noise makes :math:`x_t = \alpha x_0 + \sigma\varepsilon` the diffused
data, whose score is minus the mean of the noise over :math:`\sigma`. Optimal transport instead
assigns the normals of a batch to its points so that

.. math:: \sum_i |x_0^{(i)} - \varepsilon^{(\pi(i))}|^2

is least over all permutations :math:`\pi`. A field that is trained so has the velocity of another
flow from the same noise to the same data, with straighter paths the larger the batch. It is *not*
the score of the diffused data: only its velocity, and samples and likelihoods by its probability
flow, mean what they say.

References:
    Improving and generalizing flow-based generative models with minibatch optimal transport (Tong,
    Fatras, Malkin, Huguet, Zhang, Rector-Brooks, Wolf and Bengio, 2024), section 3.2.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Pairing = Literal["independent", "transport"]


def transported(
    x: Float[Tensor, "steps batch *event"], z: Float[Tensor, "steps batch *event"]
) -> Float[Tensor, "steps batch *event"]:
    """The normals of each step in the order in which they are nearest to its points, exactly.

    It waits for the device, and takes a time of order ``batch`` to the third power.
    """
    orders = []
    for points, normals in zip(x.double(), z.double(), strict=True):
        flat = (rows.reshape(len(rows), -1) for rows in (points, normals))
        cost = torch.cdist(*flat).square().cpu().numpy()
        orders.append(torch.from_numpy(linear_sum_assignment(cost)[1]).to(z.device))
    return torch.stack([normals[order] for normals, order in zip(z, orders, strict=True)])
