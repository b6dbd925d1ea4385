import pytest
import torch
from torch import nn

from scorefield.errors import UnsupportedError
from scorefield.training.ema import EMA, HalfLife
from scorefield.training.lengths import PowerAverage


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_is_the_weighted_mean_of_its_history(decay, warmup):
    module = nn.Linear(3, 2).double()
    ema = EMA(module, decay, warmup)
    history = [module.weight.detach().clone()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3, generator=generator, dtype=torch.float64))
        history.append(module.weight.detach().clone())
        ema.update()
    # In closed form: theta_k has the weight (1 - d_k) times all later decays.
    decays = [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(1, 41)]
    weights, product = [], 1.0
    for d in reversed(decays):
        weights.append((1 - d) * product)
        product *= d
    weights = [product, *reversed(weights)]
    assert sum(weights) == pytest.approx(1)
    expected = sum(w * h for w, h in zip(weights, history, strict=True))
    torch.testing.assert_close(ema.state_dict()["weight"], expected, rtol=1e-12, atol=1e-12)


def test_a_constant_is_its_own_average():
    module = nn.Linear(3, 2)
    ema = EMA(module, 0.9)
    for _ in range(5):
        ema.update()
    assert torch.equal(ema.state_dict()["weight"], module.weight)


def test_state_round_trip():
    module = nn.BatchNorm1d(3)
    ema = EMA(module, 0.9)
    with torch.no_grad():
        module.weight.add_(1)
        module.running_mean.add_(2)
    ema.update()
    state = ema.state_dict()
    assert torch.equal(state["running_mean"], module.running_mean)
    twin = EMA(nn.BatchNorm1d(3), 0.9)
    twin.load_state_dict(state, updates=1)
    assert torch.equal(twin.state_dict()["weight"], state["weight"])
    assert twin.updates == 1


def test_refuses_another_field():
    with pytest.raises(ValueError, match="not those that were averaged"):
        EMA(nn.Linear(3, 2), 0.9).copy_to(nn.Linear(2, 2))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_refuses_a_decay_out_of_range(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(nn.Linear(1, 1), decay)


MODULE = nn.Linear(3, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("average", [
    lambda module: PowerAverage(module, 0.1),
    lambda module: HalfLife(module, 5.0, 5),
    lambda module: EMA(module, 0.9),
    lambda module: EMA(MODULE, 0.9).copy_to(module),
])  # fmt: skip
@pytest.mark.parametrize("module", [3, None, "field", [MODULE]])
def test_what_is_no_module_is_named(average, module):
    with pytest.raises(UnsupportedError, match=r"must be of class Module, got (an? |None)"):
        average(module)
