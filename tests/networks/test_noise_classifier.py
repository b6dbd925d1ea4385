"""Truths about the classifier of noisy images."""

import pytest
import torch

from scorefield.networks.classifier import NoiseClassifier, standardized

SMALL = {"shape": (2, 8, 6), "classes": 4, "multiplier": 1, "blocks": 2, "embedding": 8}


def small(**sizes):
    return NoiseClassifier(**(SMALL | sizes)).double().eval()


def images(n=5, shape=(2, 8, 6)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return x, torch.logspace(-2, 1, n, dtype=torch.float64)


def test_the_default_is_the_wide_network_of_28_layers():
    """Parameters counted by hand: 12 blocks of 160, 320 and 640 channels."""
    told, expected, width = 512, 128 + (256 + 1) * 512 + (512 + 1) * 512 + 9 * 3 * 16, 16
    for outputs in (160, 320, 640):
        for _ in range(4):
            norms = 2 * width + 2 * outputs
            expected += 9 * width * outputs + 9 * outputs**2 + norms + (told + 1) * outputs
            width = outputs
    expected += 2 * 640 + (640 + 1) * 10
    network = NoiseClassifier()
    assert sum(p.numel() for p in network.parameters()) == expected
    assert [b.first_norm.num_groups for b in network.blocks[::4]] == [4, 32, 32]
    assert network(torch.zeros(2, 3, 32, 32), torch.ones(2)).shape == (2, 10)


def test_brightness_and_contrast_do_not_count():
    network = small()
    x, level = images()
    torch.testing.assert_close(network(3 * x - 7, level), network(x, level))


def test_standardised_images():
    x, _ = images()
    y = standardized(5 * x + 2).flatten(1)
    assert y.mean(dim=1).abs().max() < 1e-12
    torch.testing.assert_close(y.std(dim=1, correction=0), torch.ones_like(y[:, 0]))
    # An image that is nearly flat is not blown up to noise: its deviation counts as 1/√96 at least.
    faint = 1e-6 * x
    centred = faint - faint.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(standardized(faint), centred * 96**0.5)


def test_rows_do_not_see_each_other():
    network = small()
    x, level = images()
    together = network(x, level)
    for k in range(len(x)):
        torch.testing.assert_close(network(x[k : k + 1], level[k : k + 1])[0], together[k])


def test_the_noise_level_counts():
    network = small()
    x, level = images()
    assert (network(x, level) - network(x, 1.01 * level)).abs().max() > 1e-3


def test_gradients_agree_with_finite_differences():
    network = small()
    x, level = images(3)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(y, level).log_softmax(dim=1)[:, 1].sum(), y)
    h, ends = 1e-6, []
    for sign in (1, -1):
        logits = network(x + sign * h * v, level)
        ends.append(logits.log_softmax(dim=1)[:, 1].sum())
    difference = (ends[0] - ends[1]) / (2 * h)
    torch.testing.assert_close((slope * v).sum(), difference, rtol=1e-5, atol=1e-8)


def test_gradients_reach_every_parameter():
    network = small()
    x, level = images()
    (network(x, level) * torch.arange(4)).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 0, name
    assert not network.waves.frequencies.requires_grad


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 1, 1), (1, 2, 9)])
def test_images_of_any_size(shape):
    x, level = images(2, shape)
    assert small(shape=shape)(x, level).shape == (2, 4)


def test_the_seed_decides_the_weights():
    torch.manual_seed(1)
    a = small().state_dict()
    torch.manual_seed(2)
    b, c = small().state_dict(), small(seed=1).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    for name in ("first.weight", "waves.frequencies"):
        assert not torch.equal(a[name], c[name])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"shape": (8, 8)}, "channels, height, width"),
        ({"classes": 0}, "positive classes, got 0"),
        ({"multiplier": 0}, "positive multiplier, got 0"),
        ({"blocks": -1}, "positive blocks, got -1"),
        ({"embedding": 0}, "positive embedding, got 0"),
        ({"scale": 0.0}, "positive scale, got 0.0"),
    ],
)
def test_the_classifier_names_the_size_that_it_refuses(sizes, message):
    with pytest.raises(ValueError, match=message):
        NoiseClassifier(**(SMALL | sizes))
