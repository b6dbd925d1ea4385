"""Dropout whose masks have addresses: its rate, what is independent of what, and derivatives."""

import math

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    MLP,
    ArraySource,
    HybridField,
    Objective,
    Optim,
    PreconditionedField,
    UNet,
)
from scorefield.dropout import Dropout, dropouts, set_keys
from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.objectives.denoising import DenoisingScoreMatching
from scorefield.rows import of_rows
from scorefield.training.settings import TrainSettings
from scorefield.training.step import Stepper

torch.set_num_threads(1)


def keys(rows, layers=1, seed=0, step=0):
    drawn = Noise(seed).integers("keys", 2**32, (layers, 2), torch.arange(rows), step)
    return (drawn - 2**31).to(torch.int32)


def masks(rows, size, p, layers=1, seed=0, step=0):
    """Where ones are set to zero in layers: (layers, rows, size)."""
    stack = [Dropout(p) for _ in range(layers)]
    set_keys(stack, keys(rows, layers, seed, step))
    return torch.stack([layer(torch.ones(rows, size)) == 0 for layer in stack])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_zeros_and_of_pairs_of_zeros_is_that_of_independent_draws(p):
    found = masks(600, 700, p, layers=2, seed=1).double()
    n = found[0].numel()
    # Five standard deviations.
    assert abs(found.mean() - p) < 5 * math.sqrt(p * (1 - p) / (2 * n))
    unit = (found - p) / math.sqrt(p * (1 - p))
    first, second = unit
    others = masks(600, 700, p, seed=1, step=1)[0].double()
    others = (others - p) / math.sqrt(p * (1 - p))
    # Neighbours in a row, neighbouring rows, the two layers, and two steps.
    pairs = (first[:, 1:] * first[:, :-1], first[1:] * first[:-1], first * second, first * others)
    for product in pairs:
        assert abs(product.mean()) < 5 / math.sqrt(product.numel())
    for total in (first.sum(0), first.sum(1)):
        scale = total.var() / (n / len(total))
        kurtosis = 3 + 1 / (p * (1 - p)) * len(total) / n
        assert abs(scale - 1) < 5 * math.sqrt((kurtosis - 1) / len(total))


def test_the_mask_of_a_row_does_not_depend_on_its_batch_or_shape_of_memory():
    layer, x = Dropout(0.3), torch.randn(8, 3, 4, 4)
    known = keys(8)
    set_keys([layer], known)
    whole = layer(x)
    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), whole)
    for rows in (slice(0, 3), slice(3, 8), slice(5, 6)):
        set_keys([layer], known[rows])
        assert torch.equal(layer(x[rows]), whole[rows])


def test_a_number_is_scaled_to_the_same_mean():
    layer, x = Dropout(0.2), torch.randn(4, 5)
    set_keys([layer], keys(4))
    kept = layer(x) != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(layer(x)[kept], x[kept] / 0.8)


def test_in_evaluation_mode_and_at_zero_nothing_is_dropped():
    x = torch.randn(4, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert dropouts(nn.Sequential(Dropout(0.0), Dropout(0.1))) != []
    assert len(dropouts(nn.Sequential(Dropout(0.0), Dropout(0.1)))) == 1


def test_without_keys_the_generator_of_torch_draws_them():
    layer, x = Dropout(0.5), torch.ones(16, 64)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan, True])
def test_a_probability_is_checked(p):
    with pytest.raises(UserError, match="dropout"):
        Dropout(p)


@pytest.mark.parametrize("rows", [1, 3])
def test_keys_of_other_rows_are_refused(rows):
    layer = Dropout(0.5)
    set_keys([layer], keys(rows))
    with pytest.raises(UserError, match=f"the keys of {rows} rows, and was given 2"):
        layer(torch.ones(2, 3))


def test_it_has_derivatives_of_every_kind_and_is_one_graph():
    layer, x, v = Dropout(0.3).double(), torch.randn(4, 6).double(), torch.randn(4, 6).double()
    set_keys([layer], keys(4))
    mask = layer(torch.ones_like(x))

    def f(u):
        return layer(u).pow(3)

    expected = 3 * mask * (mask * x) ** 2
    torch.testing.assert_close(torch.func.jvp(f, (x,), (v,))[1], expected * v)
    u = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(u).sum(), u, create_graph=True)
    torch.testing.assert_close(slope, expected)
    (twice,) = torch.autograd.grad(slope.sum(), u)
    torch.testing.assert_close(twice, 6 * mask**3 * x)
    each = torch.func.vmap(lambda w: torch.func.jvp(f, (x,), (w,))[1])(torch.stack((v, 2 * v)))
    torch.testing.assert_close(each, torch.stack((expected * v, 2 * expected * v)))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))
    set_keys([layer], keys(4, seed=1))
    assert torch.equal(compiled(x), layer(x))
    assert not torch.equal(layer(torch.ones_like(x)), mask)


def images():
    x = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return ArraySource(x, x[:4], "images")


def field(kind):
    def plain(seed):
        network = UNet((1, 4, 4), channels=4, multipliers=(1,), dropout=0.3, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        return PreconditionedField(network, EDM(), sigma_data=1.0)

    return HybridField(plain(0), plain(1), 0.5) if kind == "hybrid" else plain(0)


def stepper(kind, accumulate, seed=0):
    objective = Objective(DenoisingScoreMatching(sigma_data=1.0))
    settings = TrainSettings(10, 12, accumulate=accumulate)
    made = field(kind).double()
    return Stepper(made, images(), objective, Optim(), settings, Noise(seed), Engine("cpu"))


@pytest.mark.parametrize("kind", ["plain", "hybrid"])
def test_a_batch_in_parts_has_the_masks_and_the_gradient_of_the_whole(kind):
    gradients = []
    for parts in (1, 3, 5):
        one = stepper(kind, parts)
        one.take(0)
        gradients.append(one.descent.gradient.clone())
    other = stepper(kind, 1, seed=1)
    other.take(0)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-11, atol=1e-13)
    assert (other.descent.gradient - gradients[0]).abs().max() > 1e-3


def test_a_part_of_a_field_has_the_keys_of_its_own_rows():
    layer, rows = Dropout(0.5), torch.tensor([4, 1])
    x, module = torch.randn(6, 9), nn.Sequential(layer)
    set_keys([layer], keys(6))
    whole = layer(x)
    with of_rows(module, rows):
        assert torch.equal(layer(x[rows]), whole[rows])
        with of_rows(module, torch.tensor([1])):
            assert torch.equal(layer(x[rows[1:]]), whole[rows[1:]])
    assert torch.equal(layer(x), whole)


def test_a_training_gives_the_layers_back_without_keys():
    from scorefield import fit

    made = field("plain")
    fit(made, images(), steps=2, batch_size=4, quiet=True)
    assert all(layer._rows is None for layer in dropouts(made))
    assert dropouts(made)


def test_an_old_identity_names_the_same_layer():
    from scorefield.training.identity import of_module

    old = nn.Sequential(MLP(2, hidden=4, depth=1), nn.Dropout(0.1))
    new = nn.Sequential(MLP(2, hidden=4, depth=1), Dropout(0.1))
    assert of_module("field", new) == of_module("field", old)
