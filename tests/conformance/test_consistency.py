"""The consistency term of the two pseudo-atoms against recorded values.

What was recorded mixes two grids of times: the start has a time of one, the trajectory runs on
another, and the transition kernel is that between the start's time and the trajectory's end.
"""

import pytest
import torch

from scorefield import PseudoAtoms
from scorefield.calculus.consistency import kernel_target, reverse_trajectory
from scorefield.domain import Torus
from tests.conformance.atoms import PROCESS, PerceptronField, close, recorded

GRID = torch.linspace(1e-5, 1.0, 100, dtype=torch.float64)
CASES = [f"{mode}_{seed}" for mode in ("self", "guided") for seed in (0, 1, 2)]


@pytest.fixture(params=CASES)
def case(request):
    """The field, who draws the trajectories, and the arrays of a case."""
    arrays, state = recorded("consistency")
    field = PerceptronField(state, Torus((2, 1)))
    guide = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=PROCESS)
    prefix = f"{request.param}_"
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return field, field if prefix.startswith("self") else guide, found


def test_trajectories_are_the_recorded_ones(case):
    field, leader, arrays = case
    index = torch.cat((arrays["predictor_index"], arrays["end_index"].reshape(1)))
    times = GRID[index - 1].unsqueeze(1).expand(-1, len(arrays["x_start"]))
    states = reverse_trajectory(leader, arrays["x_start"], times, arrays["z"])
    close(field.domain.wrap(states), arrays["traj"])
    close(times[-1, 0], arrays["t_end"])


def test_the_target_the_loss_and_its_gradient_are_the_recorded_ones(case):
    field, _, arrays = case
    x_s, x_e = arrays["x_start"], arrays["x_end"]
    s, e = (arrays[f"t_{end}"].expand(len(x_s)) for end in ("start", "end"))
    target = kernel_target(field, x_s, s, x_e, e)
    close(target, arrays["target"])
    score = -field.predict_noise(x_s, s)
    loss = (score * (score - 2 * target)).sum() / len(x_s)
    close(loss, arrays["loss"])
    weight = field.network.weights["output_X_layer/weight"]
    (gradient,) = torch.autograd.grad(loss, weight)
    close(gradient, arrays["grad_output_X_weight"])
