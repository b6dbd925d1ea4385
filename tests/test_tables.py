"""Truths about tables of variances and the processes that are made of them."""

import math

import pytest
import torch

from scorefield import DiscreteVP, Gaussian, PreconditionedField, TimeLabel, VPrediction
from scorefield import zero_terminal_snr as without_signal
from scorefield.sde.discrete import DDPMSteps, Exact
from tests.laws.cases import Wave, normal

N = 200
NODES = torch.linspace(0, 1, N, dtype=torch.float64)


def close(actual, expected, rtol=1e-12):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=rtol, atol=0)


def products(betas):
    left, found = 1.0, []
    for beta in betas:
        left *= 1 - beta
        found.append(left)
    return torch.tensor(found, dtype=torch.float64)


def cosine(u):
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def sigmoid(u):
    """Jabri et al. (2023), algorithm 1, with start -3, end 3 and temperature 1."""

    def logistic(x):
        return 1 / (1 + math.exp(-x))

    return (logistic(3) - logistic(6 * u - 3)) / (logistic(3) - logistic(-3))


TABLES = {
    "linear": [0.1 / N + i / (N - 1) * 19.9 / N for i in range(N)],
    "scaled_linear": [
        (math.sqrt(0.1 / N) + i / (N - 1) * (math.sqrt(20 / N) - math.sqrt(0.1 / N))) ** 2
        for i in range(N)
    ],
    "cosine": [min(0.999, 1 - cosine((i + 1) / N) / cosine(i / N)) for i in range(N)],
    "sigmoid": [min(0.999, 1 - sigmoid((i + 1) / N) / sigmoid(i / N)) for i in range(N)],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_named_table_is_that_of_the_literature(name):
    sde = DiscreteVP(betas=name, levels=N)
    close(sde.table, torch.tensor(TABLES[name], dtype=torch.float64))
    given = DiscreteVP(betas=TABLES[name])
    assert given.levels == N
    for process in (
        sde,
        given,
        DiscreteVP(betas=sde.table),
        DiscreteVP(betas=tuple(sde.table.tolist())),
    ):
        close(process.alpha(NODES) ** 2, products(TABLES[name]), rtol=1e-9)
        close(process.sigma(NODES) ** 2, 1 - products(TABLES[name]), rtol=1e-9)
        assert process.t_max == 1


def test_any_table_has_the_products_of_its_steps():
    table = [0.2, 0.01, 0.5, 0.3, 0.05]
    sde = DiscreteVP(betas=table)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    close(sde.alpha(t) ** 2, products(table))
    step, exact = DDPMSteps(5).step(sde, t[1:], t[:-1]), Exact().step(sde, t[1:], t[:-1])
    for ours, theirs in zip(exact, step, strict=True):
        close(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_its_steps_a_process_is_exact_in_any_precision(dtype):
    t = torch.arange(1000).to(dtype) / 999
    for sde in (DiscreteVP(), DiscreteVP(betas="cosine")):
        rounding = 30 * torch.finfo(dtype).eps
        left = (1 - sde.table).cumprod(0)
        close(sde.alpha(t), left.sqrt().to(dtype), rtol=max(rounding, 1e-9))
        close(sde.sigma(t), (1 - left).sqrt().to(dtype), rtol=max(rounding, 1e-9))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_without_terminal_signal_nothing_is_left_at_the_end(name):
    """Lin et al. (2024), algorithm 1: the roots of the products are shifted and scaled."""
    before = DiscreteVP(betas=name, levels=N)
    sde = DiscreteVP(betas=without_signal(before.table))
    old, new = before.alpha(NODES), sde.alpha(NODES)
    assert float(new[-1]) == 0
    close(new[0], old[0])
    torch.testing.assert_close(new, (old - old[-1]) * (old[0] / (old[0] - old[-1])))
    assert float(sde.sigma(NODES)[-1]) == 1
    assert 0.99 < sde.t_max < 1
    assert sde.sigma_max == pytest.approx(1e5)
    with pytest.raises(ValueError, match=r"removes all of the data.*take the discretization Exact"):
        DDPMSteps(N).step(sde, NODES[1:-1], NODES[:-2])


def test_where_no_signal_is_left_v_still_predicts_the_data():
    sde = DiscreteVP(betas=without_signal(DiscreteVP().table))
    net, x = Wave((3,)), normal((4, 3), "x")
    field = PreconditionedField(net, sde, parametrization=VPrediction(TimeLabel(999)))
    output = net(x, torch.full((4,), 999.0, dtype=torch.float64))
    assert torch.equal(field.denoise(x, 1.0), -output)
    assert torch.equal(field.predict_noise(x, 1.0), x)
    assert torch.equal(field.score(x, 1.0), -x)
    assert field.velocity(x, 1.0).isfinite().all()


def test_the_score_of_normal_data_is_that_of_the_steps():
    sde = DiscreteVP(betas="cosine", levels=N)
    truth, x = Gaussian(torch.full((3,), 0.4), std=0.7, sde=sde), normal((N, 3), "x")
    left = products(TABLES["cosine"])[:, None]
    expected = -(x - left.sqrt() * 0.4) / (left * 0.49 + 1 - left)
    torch.testing.assert_close(truth.score(x, NODES), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("betas", "match"),
    [
        ("cosin", "betas is 'cosin'; the nearest is 'cosine'"),
        ("?", "tables are linear, scaled_linear, cosine, sigmoid"),
        ([0.1], "at least 2 numbers"),
        ([[0.1, 0.2]], "at least 2 numbers"),
        ([0.1, 0.0, 0.2], r"betas lie in \(0, 1\), the last may be 1; number 1 is 0"),
        ([1.0, 0.2], "number 0 is 1"),
        ([0.1, 1.5], "number 1 is 1.5"),
        ([0.1, math.nan], "number 1 is nan"),
    ],
)
def test_what_is_no_table_is_refused_by_name(unchecked, betas, match):
    with pytest.raises(ValueError, match=match):
        DiscreteVP(betas=betas)
