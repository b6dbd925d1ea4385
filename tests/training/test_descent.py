"""One update of the weights: against torch's own optimiser, and where it is not to be taken."""

import math

import pytest
import torch
from torch import nn

from scorefield import Optim
from scorefield.training.descent import Descent, joint_gradient


def layers(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))


def quadratic(module, factor=1.0):
    """A loss whose gradient is the weights times a factor."""
    return sum(0.5 * factor * p.square().sum() for p in module.parameters())


def take(descent, step, lr, loss):
    descent.begin(step, lr)
    return descent.step(loss)


def descended(module, losses, most=3, scaled=False, **optim):
    """The steps that were taken, and the descent."""
    descent = Descent(list(module.parameters()), Optim(lr=0.1, **optim), most, scaled)
    taken = []
    for step, factor in enumerate(losses, start=1):
        descent.clear()
        loss = quadratic(module, factor)
        descent.add(loss)
        taken.append(bool(take(descent, step, 0.1, loss.detach())[1]))
    return taken, descent


def states(module, descent):
    moments = [m for s in descent.optimizer.state.values() for m in s.values()]
    return [t.clone() for t in (*module.parameters(), *moments)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_step_that_is_not_finite_changes_nothing(bad, kind):
    one, other = layers(), layers()
    optim = {"kind": kind, "weight_decay": 0.1, "clip": 1.0}
    taken, descent = descended(one, [1.0, 2.0, bad, bad, 3.0], **optim)
    assert taken == [True, True, False, False, True]
    assert int(descent.last) == 5
    # To the bit what the steps that were taken do alone.
    _, alone = descended(other, [1.0, 2.0, 3.0], **optim)
    for mine, theirs in zip(states(one, descent), states(other, alone), strict=True):
        assert torch.equal(mine, theirs)


def test_a_loss_that_is_not_finite_with_a_finite_gradient_changes_nothing():
    module = layers()
    before = [p.clone() for p in module.parameters()]
    descent = Descent(list(module.parameters()), Optim(), 3)
    descent.add(quadratic(module))
    _, taken = take(descent, 1, 0.1, torch.tensor(math.inf))
    assert not taken
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_after_so_many_no_step_is_taken():
    module = layers()
    taken, descent = descended(module, [1.0, *[math.nan] * 3, 1.0, 1.0], most=3)
    assert taken == [True] + [False] * 5
    assert int(descent.last) == 1
    # One less is forgiven.
    assert descended(layers(), [1.0, *[math.nan] * 2, 1.0], most=3)[0][-1]


@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_loss_scale_changes_no_step(clip):
    one, other = layers(), layers()
    optim = {"clip": clip}
    descended(one, [1.0, 2.0, 3.0], **optim)
    descended(other, [1.0, 2.0, 3.0], scaled=True, **optim)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        # The scale is a power of two.
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_a_loss_scale_falls_until_the_gradient_is_finite():
    weight = nn.Parameter(torch.tensor([2.0]))
    descent = Descent([weight], Optim(), 9, True)
    slope = torch.finfo(torch.float32).max * 2.0**-13.5
    scales, taken = [], []
    for step in range(1, 6):
        descent.clear()
        # The slope overflows times the scale, and not by itself.
        descent.add((weight * slope).sum())
        scales.append(float(descent.state_dict()["scale"]))
        taken.append(bool(take(descent, step, 0.1, torch.tensor(1.0))[1]))
    assert scales == [2.0**16, 2.0**15, 2.0**14, 2.0**13, 2.0**13]
    assert taken == [False, False, False, True, True]


def test_a_loss_scale_grows_after_many_steps():
    module = nn.Linear(1, 1)
    taken, descent = descended(module, [1.0] * 2001, scaled=True)
    assert all(taken)
    assert float(descent.state_dict()["scale"]) == 2.0**17


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("resumed", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_the_weights_changes_no_step(layout, resumed):
    reference = layers()
    descended(reference, [1.0, 2.0, 3.0])
    first = layers().to(memory_format=layout)
    _, descent = descended(first, [1.0, 2.0])
    second = layers(1).to(memory_format=resumed)
    second.load_state_dict(first.state_dict())
    again = Descent(list(second.parameters()), Optim(lr=0.1), 3)
    again.load_state_dict(descent.state_dict())
    again.add(quadratic(second, 3.0))
    take(again, 3, 0.1, torch.tensor(1.0))
    for mine, theirs in zip(second.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_weights_with_gaps_in_memory_are_trained_as_others():
    torch.manual_seed(0)
    wide = torch.randn(4, 6)
    gaps, dense = nn.Module(), nn.Module()
    gaps.weight, dense.weight = nn.Parameter(wide[:, :2]), nn.Parameter(wide[:, :2].clone())
    for module in (gaps, dense):
        descended(module, [1.0, 2.0])
    assert torch.equal(gaps.weight, dense.weight)


def test_gradients_of_any_layout_are_added_in_that_of_the_weights():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    joint = joint_gradient([weight])
    given = torch.randn(4, 3, 2, 2)
    torch.autograd.backward([weight], [given])
    assert weight.grad.stride() == weight.stride()
    assert torch.equal(weight.grad, given)
    torch.testing.assert_close(torch.linalg.vector_norm(joint), torch.linalg.vector_norm(given))
