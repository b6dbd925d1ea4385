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

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, Path | None]]:
        # An exception is otherwise rebuilt from its message, on the way between processes too.
        return type(self), (self.step, self.checkpoint)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice."""
    # On the CPU, torch says it in words only.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    said = isinstance(error, RuntimeError) and any(w in str(error) for w in words)
    return said or isinstance(error, MemoryError)
