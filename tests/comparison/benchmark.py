"""Evaluations made by hand, for the tests of tables."""

from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance, Evaluation, Floor, Level, Milestone

FLOOR = Floor(1.0, 0.01, 0.2, 8)
PROTOCOL = {
    "nfes": [8, 18],
    "along": 36,
    "samples": 100,
    "pairs": 8,
    "sigmas": [0.5, 2.0],
    "points": 50,
    "columns": 1024,
    "draws": 16,
    "seed": 0,
    "sampler": "heun",
    "data": {"kind": "ring", "radius": 4},
    "estimators": {"loops": {"sides": 8}},
}


def sliced(budget, value, error=0.1):
    """A sliced Wasserstein distance at a budget."""
    return Distance(
        "heun",
        budget,
        budget - 1,
        "sliced_wasserstein",
        "coordinates",
        Estimate(value, error, 100, "units"),
        FLOOR,
        Estimate(0.01 * budget, 0.001, 5, "s"),
    )


def milestone(step, value):
    """A checkpoint along the training."""
    loss = Distance("", 0, 0, "validation_loss", "", Estimate(2 * value, 0.1, 100))
    return Milestone(step, Estimate(0.1 * step, 0.01, 4, "s"), (sliced(36, value), loss))


def evaluation(
    model, seed, value, *, step_time=0.1, steps=100, distances=None, curl=None, adds=1000.0
):
    """A run: its distances are ``value`` at both budgets unless others are given, its checkpoints
    at every tenth step are ``value`` plus the share of the training that is missing.
    """
    curl = value if curl is None else curl
    return Evaluation(
        dataset="toy",
        model=model,
        seed=seed,
        step=steps,
        distances=distances or (sliced(8, value), sliced(18, value)),
        levels=(
            Level("relative_asymmetry", 0.5, Estimate(curl, 0.1, 50)),
            Level("relative_asymmetry", 2.0, Estimate(7 * curl, 0.1, 50)),
            Level("loop_circulation", 0.5, Estimate(curl, 0.1, 50, "", {}, 0.05), 0.25),
        ),
        validation=Estimate(value, 0.1, 100),
        compute={
            "parameters": 7,
            "steps": steps,
            "batch_size": 4,
            "images": 40,
            "rows": 9,
            "seconds_per_step": step_time,
            "seconds_per_step_error": step_time / 100,
            "threads": 1,
            "multiply_adds_per_call": 50.0,
            "multiply_adds_per_step": adds,
            "calls_per_step": 4.0,
        },
        protocol=PROTOCOL,
        milestones=tuple(
            milestone(step, value + 1 - step / steps)
            for step in range(steps // 10, steps + 1, steps // 10)
        ),
    )


def write(root, *evaluations):
    """Writes evaluations into their folders under ``root``."""
    for e in evaluations:
        e.write(root / e.dataset / e.model / f"seed{e.seed}")
