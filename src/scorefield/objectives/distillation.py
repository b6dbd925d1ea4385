r"""Distillation: a field that is fitted to the score of another one, its teacher.

The loss is that of :mod:`~scorefield.objectives.denoising`, at the same points, times and weights,
with the noise that the teacher predicts in place of the noise that was drawn,

.. math:: \mathbb{E}\; w(t)\,r\,\big\| \hat\varepsilon(x_t, t) - \hat\varepsilon_T(x_t, t) \big\|^2,
    \qquad \hat\varepsilon = -\sigma s .

Of gradients :math:`s = \nabla\phi`, the minimiser at a time is the projection of the teacher onto
the gradients in :math:`L^2(p_t)`: the gradient part :math:`\nabla\psi` of its Hodge split

.. math:: s_T = \nabla\psi + v, \qquad \nabla \cdot (p_t v) = 0, \qquad
    \mathbb{E}\,|s_T - \nabla\phi|^2 = \mathbb{E}\,|v|^2 + \mathbb{E}\,|\nabla\phi - \nabla\psi|^2 .

What is lost is the part :math:`v` that is no gradient, which moves no mass under :math:`p_t`, and
the error of fitting. What is gained is a potential: exact acceptance and particle weights where
fields are composed. A teacher :math:`s_T = -B x` on normal data with covariance :math:`S_t` at time
t has the projection :math:`-A x` with :math:`A S_t + S_t A = B S_t + S_t B^\top`.

The distribution :math:`p_t` is that of the points that are noised. Data give the one that the
teacher was trained on. Where there are none, as of a model of others, take the teacher's own
samples as the data: the projection is then that under their noised distribution.

References:
    Composition and control with distilled energy diffusion models and sequential Monte Carlo
    (Thornton, Béthune, Zhang, Bradley, Nakkiran and Zhai, 2025, arXiv 2502.12786), for the
    conservative projection.

    Should EBMs model the energy or the score? (Salimans and Ho, 2021), section 3, for potentials of
    networks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import InitVar, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, check_field
from scorefield.objectives.denoising import Batch, DenoisingScoreMatching
from scorefield.objectives.pairing import Pairing
from scorefield.objectives.regression import Oracle


@dataclass(frozen=True)
class Distillation(DenoisingScoreMatching):
    r"""The regression of a field's score on a teacher's.

    It takes the place of denoising score matching in an :class:`~.Objective`. The teacher is
    evaluated without gradient and in evaluation mode, once a step, and is no part of what is
    trained or stored; its hash is, so that a training is not resumed with another one. A
    :class:`~.PotentialField` becomes the teacher's conservative projection, a
    :class:`~.PreconditionedField` a copy. Classes are the teacher's; with ``label_dropout`` it is
    evaluated without them too.

    Arguments:
        weighting, law, sigma_data, reduction: Those of :class:`~.DenoisingScoreMatching`.
        teacher: The field to be distilled, of the process, domain and classes of what is trained.

    Raises:
        ValueError: As of :class:`~.DenoisingScoreMatching`; in use, if the teacher is a field of
            another process, domain or number of classes.
        TypeError: If the teacher is no field.

    Example:
        >>> potential = PotentialField(MLP(dim=2, outputs=1), field.sde, sigma_data=data.std)
        >>> loss = Distillation(sigma_data=data.std, teacher=field)
        >>> fit(potential, data, objective=Objective(loss))
    """

    name: ClassVar[str] = "distillation"

    pairing: Pairing = dataclasses.field(init=False, default="independent")
    teacher: InitVar[ScoreField] = dataclasses.field(kw_only=True)
    oracle: Oracle = dataclasses.field(init=False)

    def __post_init__(self, teacher: ScoreField) -> None:
        super().__post_init__()
        check_field(teacher)
        object.__setattr__(self, "oracle", Oracle(teacher))

    def target(self, field: ScoreField, batch: Batch, x_t: Tensor) -> Tensor:
        owner, there = f"{self.name}: the teacher", self.oracle.field.classes
        self.oracle.check(owner, field)
        if field.classes != there:
            raise UserError(
                f"{owner} knows {there or 'no'} classes, and what is trained "
                f"{field.classes or 'none'}"
            )
        with torch.no_grad(), self.oracle.placed(x_t) as teacher:
            return teacher.predict_noise(x_t, batch.t, batch.classes)
