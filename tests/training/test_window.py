import math

import pytest
import torch

from scorefield.training.record import Failure, Window


def test_averages_each_name_over_its_own_steps():
    window = Window()
    for step in range(1, 5):
        scalars = {"loss": torch.tensor(float(step))}
        if step % 2 == 0:
            scalars["cycles"] = torch.tensor(10.0 * step, dtype=torch.float64)
        window.add(step, scalars)
    assert window.means() == {"loss": 2.5, "cycles": 30.0}
    window.clear()
    assert window.means() == {}


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_finds_the_first_number_that_is_not_finite(bad):
    window = Window()
    for step in range(1, 6):
        values = {"denoising": 1.0, "cycles": bad if step >= 3 else 1.0}
        values["loss"] = bad if step >= 3 else 1.0
        window.add(step, {k: torch.tensor(v) for k, v in values.items()})
    found = window.failure()
    assert found is not None
    assert (found.name, found.step) == ("cycles", 3)
    assert found.value == bad or math.isnan(bad)


def test_finite_numbers_are_no_failure():
    window = Window()
    window.add(1, {"loss": torch.tensor(3e38)})
    assert window.failure() is None
    assert Failure("loss", 1.0, 2).step == 2


def test_state_round_trip():
    window, twin = Window(), Window()
    window.add(1, {"loss": torch.tensor(0.1)})
    window.add(2, {"loss": torch.tensor(0.3), "cycles": torch.tensor(2.0)})
    twin.load_state_dict(window.state_dict())
    for w in (window, twin):
        w.add(3, {"loss": torch.tensor(0.7)})
    assert twin.means() == window.means()
