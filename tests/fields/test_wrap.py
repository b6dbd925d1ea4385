"""Truths about networks of others, in the conventions of others."""

import math

import pytest
import torch
from torch import nn

import scorefield as sf
from tests.laws.cases import normal

MEAN, STD = 0.4, 0.7
"""Of normal data, whose networks are known in closed form."""
OBJECTIVE = sf.DenoisingScoreMatching("score")


def posterior(x, alpha, sigma):
    """The means of the data and of the noise of normal data."""
    gap = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    return MEAN + alpha * STD**2 * gap, sigma * gap


def linear_products(count=1000):
    left, found = 1.0, []
    for i in range(count):
        left *= 1 - (0.1 / count + i / (count - 1) * 19.9 / count)
        found.append(left)
    return torch.tensor(found, dtype=torch.float64)


def cosine_products(count=1000):
    def left(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(0.999, 1 - left((i + 1) / count) / left(i / count)) for i in range(count)]
    return (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)


def by_index(products, predict):
    """A network of DDPM: the label is the index of a step."""

    def net(x, label):
        left = products[label.round().long()][:, None]
        alpha, sigma = left.sqrt(), (1 - left).sqrt()
        return predict(x, alpha, sigma, *posterior(x, alpha, sigma))

    return net


def by_sigma(read, predict):
    """A network of a process that adds noise; ``read`` gives its deviation from the label."""

    def net(x, label):
        sigma = read(label)[:, None]
        return predict(x, 1.0, sigma, *posterior(x, 1.0, sigma))

    return net


def by_time(forward, predict):
    """A network of straight paths, with the data at label 0 or, not ``forward``, at 1."""

    def net(x, label):
        sigma = (label if forward else 1 - label)[:, None]
        return predict(x, 1 - sigma, sigma, *posterior(x, 1 - sigma, sigma))

    return net


def noise(x, alpha, sigma, data, eps):
    return eps


def denoiser(x, alpha, sigma, data, eps):
    return data


def v(x, alpha, sigma, data, eps):
    return alpha * eps - sigma * data


INDEX = {"time": "index:1000"}
CONVENTIONS = {
    # diffusers, denoising-diffusion-pytorch
    "ddpm": (by_index(linear_products(), noise), {"predicts": "noise", "betas": "linear"} | INDEX),
    "ddpm x0": (
        by_index(cosine_products(), denoiser),
        {"predicts": "denoiser", "betas": "cosine"} | INDEX,
    ),
    "ddpm v": (by_index(cosine_products(), v), {"predicts": "v", "betas": "cosine"} | INDEX),
    # k-diffusion, EDM
    "denoiser of sigma": (
        by_sigma(lambda c: c, denoiser),
        {"predicts": "denoiser", "time": "sigma"},
    ),
    "log sigma": (
        by_sigma(lambda c: (4 * c).exp(), noise),
        {"predicts": "noise", "time": "log_sigma"},
    ),
    # flow_matching, torchcfm: the velocity of x = (1 - t) noise + t data
    "flow matching": (
        by_time(False, lambda x, a, s, data, eps: data - eps),
        {"predicts": "velocity", "time": "1-t"},
    ),
    # flow schedulers of diffusers, with labels before their factor of 1000
    "rectified flow": (
        by_time(True, lambda x, a, s, data, eps: eps - data),
        {"predicts": "velocity", "time": "t"},
    ),
    "score of flow": (
        by_time(True, lambda x, a, s, data, eps: -eps / s),
        {"predicts": "score", "time": "t", "sde": sf.RectifiedFlow()},
    ),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_network_in_its_convention_is_the_field(name):
    net, convention = CONVENTIONS[name]
    field = sf.wrap(net, shape=(3,), **convention)
    truth = sf.Gaussian(torch.full((3,), MEAN), std=STD, sde=field.sde)
    low, high = field.sde.level_range
    t = field.sde.time(torch.tensor([2 * low, 0.1, 1.0, 0.5 * high], dtype=torch.float64))
    if convention["time"].startswith("index"):
        t = (t * 999).round() / 999
    x = field.sde.perturb(normal((4, 3), "data"), t, normal((4, 3), "noise"))
    for quantity in ("denoiser", "noise", "velocity"):
        found, expected = (f.predict(x, t, quantity) for f in (field, truth))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


class Net(nn.Module):
    """A network of a user's own."""

    def __init__(self, channels=3, factor=1, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(channels, factor * channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, label, classes=None):
        added = label if classes is None else label + classes
        return self.dropout(self.conv(x)) + added[:, None, None, None]


IMAGES = {"shape": (3, 8, 8), "predicts": "noise", "time": "index:1000", "betas": "linear"}


def test_a_wrapped_network_is_sampled_and_trained():
    net = Net()
    field = sf.wrap(net, **IMAGES)
    assert sf.DDIM(3).sample(field, 2).shape == (2, 3, 8, 8)
    before = net.conv.weight.clone()
    sf.fit(field, torch.rand(8, 3, 8, 8), steps=2, batch_size=4, quiet=True)
    assert not torch.equal(net.conv.weight, before)


def test_the_first_half_of_the_channels_is_the_prediction():
    net, x = Net(factor=2), torch.randn(2, 3, 8, 8)
    field = sf.wrap(net, **IMAGES, learned_variance=True)
    torch.testing.assert_close(
        field.predict_noise(x, 1.0), net(x, torch.full((2,), 999.0))[:, :3], rtol=1e-5, atol=1e-5
    )


def test_classes_are_given_to_the_network():
    net, x = Net(), torch.randn(2, 3, 8, 8)
    known, free = (sf.wrap(net, **IMAGES, classes=5, unlabelled=free) for free in (False, True))
    label = torch.full((2,), 999.0)
    for field in (known, free):
        found = field.predict_noise(x, 1.0, torch.tensor([1, 4]))
        torch.testing.assert_close(found, net(x, label, torch.tensor([1, 4])))
    with pytest.raises(ValueError, match="needs their classes"):
        known.predict_noise(x, 1.0)
    torch.testing.assert_close(free.predict_noise(x, 1.0), net(x, label, torch.tensor([5, 5])))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": None}, r"shape is missing: .* as in shape=\(3, 32, 32\)"),
        ({"predicts": None}, "predicts is missing, one of noise, denoiser, v"),
        ({"time": None}, "time is missing, one of t, 1-t, sigma, log_sigma, index:N"),
        ({"predicts": "nose"}, "predicts is 'nose'; the nearest is 'noise'"),
        ({"predicts": "epsilon"}, "predicts is 'epsilon'; it is 'noise' here"),
        ({"predicts": "x0"}, "predicts is 'x0'; it is 'denoiser' here"),
        ({"time": "sigmas"}, "time is 'sigmas'; the nearest is 'sigma'"),
        ({"time": "index:x"}, "time is 'index:x', which must be as in 'index:1000'"),
        ({"betas": None}, "forward process of its training is missing: give sde="),
        ({"betas": "cosin"}, "betas is 'cosin'; the nearest is 'cosine'"),
        ({"betas": [0.1, 0.2]}, "time counts 1000 steps, the table has 2"),
        ({"time": "t"}, "betas need the number of their steps: give time='index:N'"),
        ({"sde": sf.VP()}, "give sde or betas, not both"),
        ({"betas": None, "sde": sf.EDM()}, "that of EDM goes to 80; take 'sigma' or 'log_sigma'"),
        ({"shape": (1, 8, 8)}, r"Net fails on points of shape \(2, 1, 8, 8\) and a label for each"),
        ({"learned_variance": True}, r"Net gives .* \(2, 3, 8, 8\), it must .* \(2, 6, 8, 8\)$"),
        ({"shape": 8}, r"shape must be as in \(3, 32, 32\), got 8"),
        ({"shape": "3,8,8"}, r"shape must be as in \(3, 32, 32\), got '3,8,8'"),
        ({"betas": ["a"] * 1000}, "betas must be a row of numbers: "),
        ({"betas": None, "sde": "edm"}, "sde must be of class SDE, got a str"),
        ({"betas": None, "sde": sf.EDM}, "sde must be of class SDE, got a .*"),
        *[
            ({"classes": wrong}, f"classes must be a positive integer, got {wrong!r}")
            for wrong in (0, -1, 2.5, True, "10")
        ],
        ({"unlabelled": True}, "unlabelled is for a network with classes"),
    ],
)
def test_a_mistake_in_a_convention_is_one_sentence(unchecked, changes, match):
    with pytest.raises(ValueError, match=match) as error:
        sf.wrap(Net(), **{**IMAGES, **changes})
    if changes.get("shape") != (1, 8, 8):
        assert "\n" not in str(error.value)


def test_what_a_network_gives_is_compared_with_the_points():
    shapes = r"\(2, 6, 8, 8\), .* \(2, 3, 8, 8\): with learned_variance=True the first half"
    with pytest.raises(ValueError, match=shapes):
        sf.wrap(Net(factor=2), **IMAGES)
    with pytest.raises(ValueError, match=r"Net is in training mode, where its Dropout .* eval\(\)"):
        sf.wrap(Net(dropout=0.5), **IMAGES)
    assert sf.wrap(Net(dropout=0.5).eval(), **IMAGES).domain.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (Net, "net must be a module or a function, got the class Net"),
        ("net.pt", "net must be a module or a function, got a str"),
        (Net().state_dict(), "net must be a module or a function, got a OrderedDict"),
        (None, "net must be a module or a function, got None"),
        (sf.wrap(Net(), **IMAGES), "PreconditionedField is a field already"),
        (
            lambda x, label: (x,),
            r"<lambda> gives a tuple, it must give a tensor of shape \(2, 3, 8",
        ),
        (lambda x, label: {"sample": x}, "<lambda> gives a dict, it must give a tensor"),
        (lambda x, label: x.mean(0), r"gives .* \(3, 8, 8\), it must .* of shape \(2, 3, 8, 8\)"),
        (lambda x, label: x.long(), "gives must be floating-point numbers, got torch.int64"),
        (lambda x, label: x + 0j, "gives must be floating-point numbers, got torch.complex"),
    ],
)
def test_what_is_no_network_is_refused_by_name(unchecked, net, match):
    with pytest.raises(ValueError, match=match) as error:
        sf.wrap(net, **IMAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "cut", [torch.no_grad(), torch.inference_mode(), lambda f: lambda *given: f(*given).detach()]
)
@pytest.mark.parametrize("predicts", ["noise", "denoiser", "v", "score"])
def test_a_network_without_derivatives_is_no_gradient(unchecked, cut, predicts):
    """Its Jacobian would be zero, and its asymmetry with it."""
    given = {**IMAGES, "predicts": predicts}
    with pytest.raises(ValueError, match="has no derivatives in the points, and its Jacobian"):
        sf.wrap(cut(Net().forward), **given)
    # A constant has no derivatives either, and is right.
    sf.wrap(lambda x, label: torch.zeros_like(x), **given)


RING, POINTS, LEVELS = sf.GaussianMixture.ring(), torch.rand(8, 3, 8, 8), sf.Protocol([0.5])
USES = {
    "sample": lambda net: sf.Heun(2).sample(net, 2),
    "walk": lambda net: sf.walk(net, sf.Heun(2), 2),
    "log_prob": lambda net: sf.log_prob(net, POINTS),
    "fit": lambda net: sf.fit(net, POINTS, steps=1),
    "validation_loss": lambda net: sf.validation_loss(net, RING, OBJECTIVE),
    "HybridField": lambda net: sf.HybridField(net, net, 0.5),
    "ClassifierGuidance": lambda net: sf.ClassifierGuidance(net, net),
    "ClippedField": lambda net: sf.ClippedField(net),
    **{
        name: lambda net, name=name: getattr(sf, name)(net, RING, LEVELS)
        for name in (
            *("asymmetries", "circulation_growth", "consistency_error", "cycle_circulation"),
            *("denoising_loss", "exterior_derivative", "fokker_planck_error", "harmonic_part"),
            *("hodge_split", "loop_circulation", "path_gap", "potential_gap", "score_error"),
            *("relative_asymmetry", "winding"),
        )
    },
}


@pytest.mark.parametrize("use", USES)
def test_who_takes_a_field_says_how_a_network_becomes_one(unchecked, use):
    with pytest.raises(TypeError, match=r"Net is no score field: .* sf\.wrap\(net, shape="):
        USES[use](Net())


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_a_network_with_a_scaled_input_is_wrapped_with_its_parametrisation(sigma_data):
    def net(u, label):
        level = torch.exp(4 * label)[:, None]
        x = u * (level**2 + sigma_data**2).sqrt()
        mean = posterior(x, 1.0, level)[0]
        variance = level**2 + sigma_data**2
        return (mean - sigma_data**2 / variance * x) * variance.sqrt() / (level * sigma_data)

    predicts = sf.EDMScaling(sigma_data)
    field, x = sf.wrap(net, shape=(2,), predicts=predicts), torch.randn(4, 2).double()
    assert field.sde == sf.EDM()
    for level in (0.01, 0.3, 2.0, 20.0):
        data, noise = posterior(level * x, 1.0, level)
        torch.testing.assert_close(field.denoise(level * x, level), data)
        torch.testing.assert_close(field.predict_noise(level * x, level), noise)
    with pytest.raises(ValueError, match="a parametrisation has its own label: leave out time"):
        sf.wrap(net, shape=(2,), predicts=predicts, time="sigma")


def test_a_function_may_hold_weights_in_single_precision():
    net = nn.Linear(3, 2)

    def single(x, label):
        return net(torch.cat((x, label[:, None]), 1))

    def exact(x, label):
        return x / (1 + label[:, None] ** 2)

    x = torch.randn(4, 2, dtype=torch.float64)
    given = {"shape": (2,), "predicts": "noise", "time": "sigma"}
    found = sf.wrap(single, **given).predict_noise(x, 0.5)
    assert found.dtype == torch.float64
    label = torch.full((4,), 0.5)
    assert torch.equal(found, single(x.float(), label).double())
    # Others keep their digits.
    assert torch.allclose(sf.wrap(exact, **given).predict_noise(x, 0.5), x / 1.25, 1e-15, 0)
