"""The evaluation protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from scorefield.config.base import Counts, Positives, Section


class EvalSection(Section):
    """The protocol of an evaluation.

    ``samples`` samples for each number ``nfes`` of network calls, against as many real points;
    the noise floor over ``pairs`` pairs of real sets; diagnostics on ``points`` noisy points at
    each noise level of ``sigmas``; ``along`` says whether the checkpoints along the training are
    measured too.
    """

    nfes: Counts = (8, 18, 32, 64)
    along: bool = True
    samples: Annotated[int, Field(ge=4)] = 2048
    pairs: Annotated[int, Field(ge=2)] = 8
    sigmas: Positives = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    points: Annotated[int, Field(ge=2)] = 256
    seed: int = 0
