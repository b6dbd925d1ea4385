"""The configurations of the minimal networks: what they are built of, how large, how trained."""

import math

import pytest
import torch

from scorefield import DDIM, MinimalResNet, MinimalUNet, NoisePrediction, TimeLabel, UniformTime
from scorefield.config import presets
from scorefield.config.build import build_field, build_objective, build_sampler, build_source
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError
from scorefield.interop.convolutional import PROCESS, state_of

# Of each: the sides of an image, and the number of parameters of the original.
PUBLISHED = {
    "mnist/minimal_resnet": (28, 5_322_241),
    "mnist/minimal_unet": (28, 2_026_946),
    "fashion_mnist/minimal_resnet": (28, 5_322_241),
    "fashion_mnist/minimal_unet": (28, 2_026_946),
    "cifar10/minimal_resnet": (32, 5_331_459),
    "cifar10/minimal_unet": (32, 2_029_766),
    "celeba/minimal_resnet": (32, 5_331_459),
    "celeba/minimal_unet": (32, 2_029_766),
}
SMALL = [
    "digits/minimal_resnet",
    "digits/minimal_unet",
    "mnist/minimal_resnet_small",
    "mnist/minimal_unet_small",
    "fashion_mnist/minimal_resnet_small",
    "fashion_mnist/minimal_unet_small",
]


def test_all_of_them_are_there():
    listed = [name for name in presets.names() if name.partition("/")[2].startswith("minimal")]
    assert sorted(listed) == sorted([*PUBLISHED, *SMALL])


@pytest.mark.parametrize("name", [*PUBLISHED, *SMALL])
def test_what_is_told_and_predicted_and_how_it_is_trained(name):
    config = load_config(name)
    source = build_source(config)
    loss = build_objective(config, source).denoising
    assert (loss.weighting, loss.law, loss.reduction) == ("score", UniformTime(), "mean")
    assert config.centered
    assert config.optim.kind == "adamw"
    assert config.train.steps % config.train.checkpoint_every == 0
    assert build_sampler(config.sampler) == DDIM(20, spacing="time")
    assert config.description


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_one_is_as_large_as_the_original(name):
    """On the device meta, where tensors have shapes and no values."""
    side, parameters = PUBLISHED[name]
    config = load_config(name)
    source = build_source(config)
    with torch.device("meta"):
        field = build_field(config, source)
    assert field.domain.shape[1:] == (side, side)
    assert field.sde == PROCESS
    assert field.parametrization == NoisePrediction(TimeLabel(1.0))
    assert isinstance(field.backbone, MinimalUNet if "unet" in name else MinimalResNet)
    # Their code has a network of this structure.
    assert sum(weight.numel() for weight in state_of(field.backbone).values()) == parameters
    assert (config.optim.lr, config.train.batch_size, config.optim.clip) == (1e-4, 128, None)
    assert config.train.ema_decay == 0


@pytest.mark.parametrize("name", SMALL)
def test_a_small_one_has_a_score_and_a_gradient(name):
    config = load_config(name, ["field.network.classes=true"])
    source = build_source(config)
    field = build_field(config, source)
    assert sum(p.numel() for p in field.parameters()) < 6e5
    x = torch.rand(4, *source.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    for t in (field.sde.t_min, 0.05, field.sde.t_max):
        assert bool(field.score(x, float(t)).isfinite().all())
    t = torch.tensor([1e-3, 0.1, 0.5, 1.0])
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 9, 10, 3])
    loss = (field.predict_noise(field.sde.perturb(x, t, z), t, classes) - z).square().mean()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(p.grad is not None for p in field.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("field.network.kernel_size=4", "field.network: kernels have an odd number"),
        ("field.network.fsizes=[8, 8, 8, 8, 8]", "field.network: .* multiples of 16, got 8 x 8"),
    ],
)
def test_a_network_that_does_not_fit_is_told_with_its_place(change, message):
    config = load_config("digits/minimal_unet", [change])
    with pytest.raises(ConfigError, match=message):
        build_field(config, build_source(config))


def test_networks_are_told_the_data():
    network = "field.network={kind: minimal_resnet, channels: 16, layers: 1, padding: circular}"
    config = load_config("digits/minimal_resnet", [network])
    built = build_field(config, build_source(config)).backbone
    assert (built.event_shape, built.padding, len(built.layers)) == ((1, 8, 8), "circular", 1)
