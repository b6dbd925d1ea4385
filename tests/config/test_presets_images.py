"""The five models on images: what they share, and what each is."""

import pytest
import torch

from scorefield.calculus.asymmetry import probed_asymmetry
from scorefield.config.build import build_field, build_source
from scorefield.config.document import differences
from scorefield.config.resolve import load_config
from scorefield.data.arrays import LabelledSource
from scorefield.noise import Noise

MODELS = ("m0", "m1", "m2", "m3", "m4")


def pictures(shape, classes, n=64):
    """Random images of a shape, and their classes."""
    x = Noise(0).uniform("pictures", shape, torch.arange(n)) * 2 - 1
    labels = torch.arange(n) % classes
    return LabelledSource(x, x[:16], labels, labels[:16], "pictures")


# Of m0, and what is published, in millions: EDM (CIFAR-10 and ImageNet-64), and ADM, table 11.
PARAMETERS = {
    "cifar10": (55_735_299, 55.7),
    "imagenet64": (295_899_267, 295.9),
    "imagenet128": (421_522_691, 422),
    "imagenet256": (553_831_171, 554),
    "imagenet512": (558_863_107, 559),
    "lsun256": (552_807_171, 552),
}
FAMILIES = (*PARAMETERS, "mnist", "fashion_mnist", "ffhq256", "emoji", "imagenet256_latent")


def bare(name):
    """The field of a preset without weights, and without reading data."""
    config = load_config(name, ["field.sigma_data=0.5"])
    return build_field(config, build_source(config), device="meta")


def size(field):
    return sum(p.numel() for p in field.parameters())


@pytest.mark.parametrize("family", PARAMETERS)
def test_networks_have_as_many_parameters_as_published(family):
    wanted, published = PARAMETERS[family]
    assert size(bare(f"{family}/m0")) == wanted
    assert abs(wanted / 1e6 - published) < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_five_have_the_network_of_m0(family):
    plain = size(bare(f"{family}/m0"))
    assert [size(bare(f"{family}/{m}")) for m in MODELS[1:]] == [plain, plain, plain, 2 * plain]
    assert 0.8 * plain < size(bare(f"{family}/m4_equal_cost")) < 2 * plain


def test_a_file_extends_several_the_later_on_top(tmp_path):
    for name, text in {
        "one": "seed: 1\ndescription: one\noptim: {lr: 0.1}",
        "two": "seed: 2\ntrain: {steps: 7}",
        "both": "extends: [cifar10/m0, one, two]\ntrain: {batch_size: 8}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    config = load_config(tmp_path / "both.yaml")
    assert (config.seed, config.optim.lr, config.train.steps, config.train.batch_size) == (
        2,
        0.1,
        7,
        8,
    )
    assert (config.description, config.name) == ("", "cifar10/both")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_five_models_differ_in_what_they_are_and_nothing_else(family):
    base = load_config(f"{family}/m0")
    for model in MODELS[1:]:
        changed = {
            key
            for key, *_ in differences(base.document(), load_config(f"{family}/{model}").document())
        }
        own = ("field.kind", "field.head", "field.sigma_c", "field.low_network", "objective.")
        assert {k for k in changed if not k.startswith(own)} == {"name", "description"}
        assert not {k for k in changed if k.startswith(("objective.law", "objective.weighting"))}


def test_the_small_models_of_emoji_are_changed_alike():
    changes = []
    for model in MODELS:
        whole, small = (load_config(f"emoji/{model}{end}").document() for end in ("", "_small"))
        changed = {key: new for key, _, new in differences(whole, small)}
        assert changed.pop("name") == f"emoji/{model}_small"
        assert changed.pop("description")
        changes.append(changed)
    assert all(changed == changes[0] for changed in changes)
    parts = {key.partition(".")[0] for key in changes[0]}
    assert parts == {"field", "optim", "train", "eval"}


@pytest.mark.parametrize("head", ["inner", "denoising"])
def test_a_potential_of_784_pixels_is_conservative(head):
    """By six probes of the Jacobians at three noise levels, with weights of ordinary size: as it
    begins, the network adds nothing to them."""
    source = pictures((1, 28, 28), 10)
    field = build_field(load_config("fashion_mnist/m2", [f"field.head={head}"]), source)
    with torch.no_grad():
        for k, parameter in enumerate(field.parameters()):
            drawn = Noise(2).normal("weights", parameter.shape, torch.tensor([k]))[0]
            fan_in = parameter[0].numel()
            parameter.copy_(drawn / fan_in**0.5 + float(parameter.dim() == 1))
    sigma = torch.tensor([0.002, 0.5, 40.0]).repeat_interleave(2)
    index = torch.arange(len(sigma))
    noise, x = Noise(1), source.reference(len(sigma), seed=0)
    x = x + sigma.reshape(-1, 1, 1, 1) * noise.normal("points", x.shape[1:], index)
    v = noise.signs("probes", x.shape[1:], index)
    skew, whole = probed_asymmetry(field.score, x, field.sde.time(sigma), v)
    assert float((0.5 * (skew / whole).sqrt()).detach().max()) < 1e-5
