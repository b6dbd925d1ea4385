import math

import torch

from scorefield.training.record import Window


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


def test_a_step_that_was_skipped_counts_in_no_mean():
    window = Window()
    for step, (loss, taken) in enumerate([(1.0, 1.0), (math.nan, 0.0), (3.0, 1.0)], start=1):
        window.add(step, {"loss": torch.tensor(loss), "taken": torch.tensor(taken)})
    window.add(4, {"cycles": torch.tensor(math.inf), "taken": torch.tensor(0.0)})
    assert window.means() == {"loss": 2.0}
    assert window.skipped() == [2, 4]


def test_state_round_trip():
    window, twin = Window(), Window()
    window.add(1, {"loss": torch.tensor(0.1)})
    window.add(2, {"loss": torch.tensor(0.3), "cycles": torch.tensor(2.0)})
    twin.load_state_dict(window.state_dict())
    for w in (window, twin):
        w.add(3, {"loss": torch.tensor(0.7)})
    assert twin.means() == window.means()
