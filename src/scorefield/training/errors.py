"""How training can end other than by finishing."""

from __future__ import annotations

from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, a full disk, too little memory."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be written, or is not what it should be."""


class Interrupted(RuntimeError):
    """Training was asked to stop, and stopped after a whole step.

    Arguments:
        step: The number of steps done.
        checkpoint: The checkpoint of that step, if there is a folder to write to.
    """

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        where = "nothing was saved" if checkpoint is None else f"resume from {checkpoint}"
        super().__init__(f"training was interrupted after step {step}; {where}")
        self.step = step
        self.checkpoint = checkpoint
