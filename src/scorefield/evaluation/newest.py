"""The evaluation of the newest checkpoint of a run, which other numbers are added to."""

from __future__ import annotations

from scorefield.errors import RunError
from scorefield.evaluation.records import Evaluation
from scorefield.runs.run import Run
from scorefield.world import World


def evaluation_of_newest(run: Run, world: World) -> Evaluation:
    """The evaluation of a run, read by one process for all.

    Raises:
        RunError: If there is none, or it is that of an earlier checkpoint.
    """
    (kept,) = world.each([lambda: Evaluation.read(run.folder)])
    newest = run.checkpoint().step
    if kept.step != newest:
        raise RunError(
            f"{run.folder} was evaluated at step {kept.step}, and is at step {newest}: run "
            f"`scorefield eval {run.folder}`"
        )
    return kept
