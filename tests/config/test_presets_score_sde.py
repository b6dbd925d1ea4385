"""The configurations of the score-SDE code bases: what they are built of, and how large."""

import math

import pytest
import torch

from scorefield import (
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    DiscreteVP,
    EulerMaruyama,
    IndexLabel,
    Langevin,
    NoisePrediction,
    ReverseDiffusion,
    ScorePrediction,
    SigmaLabel,
    SubVP,
    TimeLabel,
    UniformTime,
)
from scorefield.config import presets
from scorefield.config.build import build_field, build_objective, build_sampler, build_source
from scorefield.config.resolve import load_config
from scorefield.objectives.denoising import TableLaw

DDPM = 35_218_947
DDPMPP, DDPMPP_DEEP = 61_804_419, 106_632_579
POSITIONAL, POSITIONAL_DEEP = 62_693_251, 107_521_411
FOURIER, FOURIER_DEEP = 62_758_915, 107_587_075  # with the frequencies, which are not trained
LARGE, HUGE, DDPM_LARGE = 65_574_549, 105_785_896, 111_569_923

# Of each: the original's name, the sides of an image, the process with its largest noise level or
# the length of its table, the number of parameters, and what samples take: times and calls.
SUBVP, VP_ = (SubVP, None), (VP, None)
TABLE = (DiscreteVP, 1000)
PRESETS = {
    "cifar10/ddpm_continuous_subvp": ("subvp/cifar10_ddpm_continuous", 32, SUBVP, DDPM, 1000),
    "cifar10/ddpmpp_continuous_subvp": ("subvp/cifar10_ddpmpp_continuous", 32, SUBVP, DDPMPP, 1000),
    "cifar10/ddpmpp_deep_continuous_subvp": (
        "subvp/cifar10_ddpmpp_deep_continuous", 32, SUBVP, DDPMPP_DEEP, 1000,
    ),
    "cifar10/ncsnpp_continuous_subvp": (
        "subvp/cifar10_ncsnpp_continuous", 32, SUBVP, POSITIONAL, 1000,
    ),
    "cifar10/ncsnpp_deep_continuous_subvp": (
        "subvp/cifar10_ncsnpp_deep_continuous", 32, SUBVP, POSITIONAL_DEEP, 1000,
    ),
    "bedroom/ncsnpp_continuous_ve": ("ve/bedroom_ncsnpp_continuous", 256, (VE, 378), LARGE, 4000),
    "celeba/ncsnpp_ve": ("ve/celeba_ncsnpp", 64, (VE, 90), POSITIONAL, 2000),
    "celebahq_256/ncsnpp_continuous_ve": (
        "ve/celebahq_256_ncsnpp_continuous", 256, (VE, 348), LARGE, 4000,
    ),
    "celebahq_1024/ncsnpp_continuous_ve": (
        "ve/celebahq_ncsnpp_continuous", 1024, (VE, 1348), HUGE, 4000,
    ),
    "church/ncsnpp_continuous_ve": ("ve/church_ncsnpp_continuous", 256, (VE, 380), LARGE, 4000),
    "cifar10/ddpm_ve": ("ve/cifar10_ddpm", 32, (VE, 50), DDPM, 2000),
    "cifar10/ncsnpp_ve": ("ve/cifar10_ncsnpp", 32, (VE, 50), POSITIONAL, 2000),
    "cifar10/ncsnpp_continuous_ve": ("ve/cifar10_ncsnpp_continuous", 32, (VE, 50), FOURIER, 2000),
    "cifar10/ncsnpp_deep_continuous_ve": (
        "ve/cifar10_ncsnpp_deep_continuous", 32, (VE, 50), FOURIER_DEEP, 2000,
    ),
    "cifar10/ncsnpp_cont": ("cifar10_ncsnpp_cont", 32, (VE, 50), FOURIER, 2000),
    "ffhq_256/ncsnpp_continuous_ve": ("ve/ffhq_256_ncsnpp_continuous", 256, (VE, 348), LARGE, 4000),
    "ffhq_1024/ncsnpp_continuous_ve": ("ve/ffhq_ncsnpp_continuous", 1024, (VE, 1348), HUGE, 4000),
    "celeba/ncsn_ve": ("ve/ncsn/celeba", 64, (VE, 1), 30_117_635, 1001),
    "celeba/ncsn_124_ve": ("ve/ncsn/celeba_124", 64, (VE, 90), 51_379_715, 2501),
    "celeba/ncsn_1245_ve": ("ve/ncsn/celeba_1245", 64, (VE, 90), 51_379_715, 2501),
    "celeba/ncsn_5_ve": ("ve/ncsn/celeba_5", 64, (VE, 1), 30_117_635, 1001),
    "cifar10/ncsn_ve": ("ve/ncsn/cifar10", 32, (VE, 1), 30_117_635, 1001),
    "cifar10/ncsn_124_ve": ("ve/ncsn/cifar10_124", 32, (VE, 50), 39_750_659, 1161),
    "cifar10/ncsn_1245_ve": ("ve/ncsn/cifar10_1245", 32, (VE, 50), 39_750_659, 1160),
    "cifar10/ncsn_5_ve": ("ve/ncsn/cifar10_5", 32, (VE, 1), 30_117_635, 1001),
    "bedroom_128/ncsnv2_ve": ("ve/ncsnv2/bedroom", 128, (VE, 190), 83_445_379, 3259),
    "celeba/ncsnv2_ve": ("ve/ncsnv2/celeba", 64, (VE, 90), 29_694_083, 2500),
    "cifar10/ncsnv2_ve": ("ve/ncsnv2/cifar10", 32, (VE, 50), 29_694_083, 1161),
    "cifar10/ddpmpp_vp": ("vp/cifar10_ddpmpp", 32, TABLE, DDPMPP, 1000),
    "cifar10/ddpmpp_continuous_vp": ("vp/cifar10_ddpmpp_continuous", 32, VP_, DDPMPP, 1000),
    "cifar10/ddpmpp_deep_continuous_vp": (
        "vp/cifar10_ddpmpp_deep_continuous", 32, VP_, DDPMPP_DEEP, 1000,
    ),
    "cifar10/ncsnpp_vp": ("vp/cifar10_ncsnpp", 32, TABLE, POSITIONAL, 1000),
    "cifar10/ncsnpp_continuous_vp": ("vp/cifar10_ncsnpp_continuous", 32, VP_, POSITIONAL, 1000),
    "cifar10/ncsnpp_deep_continuous_vp": (
        "vp/cifar10_ncsnpp_deep_continuous", 32, VP_, POSITIONAL_DEEP, 1000,
    ),
    "bedroom/ddpm_vp": ("vp/ddpm/bedroom", 256, TABLE, DDPM_LARGE, 1000),
    "celebahq_256/ddpm_vp": ("vp/ddpm/celebahq", 256, TABLE, DDPM_LARGE, 1000),
    "church/ddpm_vp": ("vp/ddpm/church", 256, TABLE, DDPM_LARGE, 1000),
    "cifar10/ddpm_vp": ("vp/ddpm/cifar10", 32, TABLE, DDPM, 1000),
    "cifar10/ddpm_continuous_vp": ("vp/ddpm/cifar10_continuous", 32, VP_, DDPM, 1000),
    # Without the embedding of the time, and the maps of it into 22 residual blocks.
    "cifar10/ddpm_unconditional_vp": ("vp/ddpm/cifar10_unconditional", 32, TABLE, None, 1000),
}  # fmt: skip
# Published numbers: score_sde_pytorch, its README.
RESULTS = {
    "cifar10/ncsnpp_ve": ("2.45",),
    "cifar10/ncsnpp_continuous_ve": ("2.38",),
    "cifar10/ncsnpp_deep_continuous_ve": ("2.20",),
    "cifar10/ddpm_vp": ("3.24", "3.37", "3.28"),
    "cifar10/ddpm_continuous_vp": ("3.69", "3.21"),
    "cifar10/ddpmpp_vp": ("2.78",),
    "cifar10/ddpmpp_continuous_vp": ("2.55", "3.93", "3.16"),
    "cifar10/ddpmpp_deep_continuous_vp": ("2.41", "3.08", "3.13"),
    "cifar10/ddpm_continuous_subvp": ("3.56", "3.05"),
    "cifar10/ddpmpp_continuous_subvp": ("2.61", "3.16", "3.02"),
    "cifar10/ddpmpp_deep_continuous_subvp": ("2.41", "2.92", "2.99"),
}
SMALL = [
    "digits/ncsnpp_ve",
    "digits/ncsnpp_classes",
    "digits/ddpmpp_vp",
    "digits/ddpmpp_subvp",
    "digits/ddpm_discrete_vp",
]


def unconditional(channels=128, embedding=512):
    """The parameters that a DDPM of CIFAR-10 loses with the time."""
    widths = [128] * 2 + [256] * 6 + [256] * 2 + [256] * 9 + [128] * 3
    time = channels * embedding + embedding + embedding * embedding + embedding
    return DDPM - time - sum(embedding * width + width for width in widths)


def test_all_of_them_are_there():
    loaded = {name: load_config(name) for name in presets.names()}
    # The others are of EDM's process.
    images = [n for n, c in loaded.items() if c.data.kind == "images" and c.sde.kind != "edm"]
    listed = [n for n in images if not n.startswith("images/") and "/minimal" not in n]
    assert sorted(listed) == sorted(PRESETS)
    assert len({original for original, *_ in PRESETS.values()}) == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_built_and_evaluated_and_as_large_as_the_original(name):
    """On the device meta, where tensors have shapes and no values; no image is read."""
    original, side, (process, extent), parameters, calls = PRESETS[name]
    config = load_config(name)
    assert original in config.description.replace(";", ",").split(", ")[0].split()
    assert all(number in config.description for number in RESULTS.get(name, ()))
    source, sampler = build_source(config), build_sampler(config.sampler)
    build_objective(config, source)
    with torch.device("meta"):
        field = build_field(config, source)
        x = torch.zeros(2, 3, side, side)
        score = field.backbone(x, torch.ones(2))
    assert score.shape == x.shape == (2, *source.shape)
    wanted = unconditional() if parameters is None else parameters
    assert sum(p.numel() for p in field.parameters()) == wanted
    assert type(field.sde) is process
    if process is VE:
        assert (field.sde.sigma_min, field.sde.sigma_max) == (0.01, extent)
    else:
        assert (field.sde.beta_min, field.sde.beta_max) == (0.1, 20.0)
        assert getattr(field.sde, "levels", None) == extent
    assert sampler.nfe == calls


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith("cifar10")])
def test_what_is_told_and_what_is_predicted(name):
    config = load_config(name)
    source = build_source(config)
    with torch.device("meta"):
        parametrization = build_field(config, source).parametrization
    loss = build_objective(config, source).denoising
    table = isinstance(loss.law, TableLaw)
    if "ncsn_" in name or "ncsnv2" in name or name.endswith(("ncsnpp_ve", "ddpm_ve")):
        levels = {"cifar10/ncsn_ve": 10, "cifar10/ncsn_5_ve": 10}.get(name, 232)
        levels = 1000 if "ncsnpp" in name or "ddpm" in name else levels
        assert parametrization == ScorePrediction(IndexLabel(levels))
        assert loss.law == TableLaw(levels)
    elif config.sde.kind == "ve":
        assert parametrization == ScorePrediction(SigmaLabel())
    else:
        assert parametrization == NoisePrediction(TimeLabel(999.0))
        assert table == (config.sde.kind == "discrete_vp")
    if not table:
        assert loss.law == UniformTime()
        assert config.sde.t_min == 1e-5
    # Half the sum over coordinates for VE, their mean for the others, which are centred.
    assert loss.weighting == "score"
    assert loss.reduction == ("half_sum" if config.sde.kind == "ve" else "mean")
    assert config.data.centered == (config.sde.kind != "ve")
    assert config.data.flip


@pytest.mark.parametrize(
    ("name", "predictor", "corrector"),
    [
        ("cifar10/ncsnpp_continuous_ve", ReverseDiffusion(), Langevin(0.16)),
        ("celeba/ncsnpp_ve", ReverseDiffusion(), Langevin(0.17)),
        ("bedroom/ncsnpp_continuous_ve", ReverseDiffusion(), Langevin(0.075)),
        ("ffhq_1024/ncsnpp_continuous_ve", ReverseDiffusion(), Langevin(0.15)),
        ("cifar10/ncsn_ve", None, AnnealedLangevin(0.316, 100)),
        ("cifar10/ncsnv2_ve", None, AnnealedLangevin(0.176, 5)),
        ("celeba/ncsn_124_ve", None, AnnealedLangevin(0.128, 5)),
        ("bedroom_128/ncsnv2_ve", None, AnnealedLangevin(0.095, 3)),
        ("cifar10/ddpm_vp", Ancestral(), None),
        ("cifar10/ncsnpp_vp", ReverseDiffusion(), None),
        ("cifar10/ddpmpp_continuous_vp", EulerMaruyama(), None),
        ("cifar10/ddpmpp_continuous_subvp", EulerMaruyama(), None),
    ],
)
def test_the_sampler_of_a_preset(name, predictor, corrector):
    sampler = build_sampler(load_config(name).sampler)
    assert (sampler.predictor, sampler.corrector) == (predictor, corrector)


@pytest.mark.parametrize(
    ("name", "lr", "warmup", "clip", "decay", "steps", "batch"),
    [
        ("cifar10/ncsnpp_continuous_ve", 2e-4, 5000, 1.0, 0.999, 1_300_000, 128),
        ("cifar10/ddpmpp_deep_continuous_vp", 2e-4, 5000, 1.0, 0.9999, 950_000, 128),
        ("cifar10/ncsnpp_cont", 2e-4, 780, 1.0, 0.999, 780_000, 128),
        ("cifar10/ncsn_ve", 1e-3, 0, None, 0.0, 1_300_000, 128),
        ("cifar10/ncsn_1245_ve", 1e-3, 0, None, 0.999, 1_300_000, 128),
        ("cifar10/ncsnv2_ve", 1e-4, 0, None, 0.999, 1_300_000, 128),
        ("bedroom_128/ncsnv2_ve", 1e-4, 0, None, 0.9999, 2_400_000, 128),
        ("bedroom/ncsnpp_continuous_ve", 2e-4, 5000, 1.0, 0.999, 2_400_000, 64),
        ("ffhq_1024/ncsnpp_continuous_ve", 2e-4, 5000, 1.0, 0.9999, 2_400_000, 8),
        ("church/ddpm_vp", 2e-5, 5000, 1.0, 0.9999, 2_400_000, 64),
    ],
)
def test_how_a_preset_is_trained(name, lr, warmup, clip, decay, steps, batch):
    config = load_config(name)
    assert (config.optim.lr, config.optim.warmup, config.optim.clip) == (lr, warmup, clip)
    train = config.train
    assert (train.ema_decay, train.steps, train.batch_size) == (decay, steps, batch)
    assert train.steps % train.checkpoint_every == 0


def test_the_prior_of_the_rewrite_is_at_the_mean_of_the_data():
    assert load_config("cifar10/ncsnpp_cont").sde.prior_mean == (0.4914, 0.4822, 0.4465)
    assert load_config("cifar10/ncsnpp_continuous_ve").sde.prior_mean == 0.0


@pytest.mark.parametrize("name", SMALL)
def test_a_small_preset_has_a_score_and_a_gradient(name):
    config = load_config(name)
    source = build_source(config)
    field, objective = build_field(config, source), build_objective(config, source)
    assert 1e5 < sum(p.numel() for p in field.parameters()) < 4e5
    x = source.reference(4, 0)
    for t in (field.sde.t_min, 0.5, field.sde.t_max):
        score = field.score(x, float(t))
        assert score.shape == x.shape
        assert bool(score.isfinite().all())
    t = torch.tensor([0.0, 1.0, 500 / 999, 0.1]).clamp(min=field.sde.t_min)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x_t = field.sde.perturb(x, t, z)
    # At the start the network is next to nothing, and the noise is predicted to be none.
    loss = (field.predict_noise(x_t, t) - z).square().mean()
    loss.backward()
    assert math.isclose(float(loss.detach()), float(z.square().mean()), rel_tol=0.05)
    trained = {k: p for k, p in field.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for k, p in trained.items() if "class" not in k)
    assert objective.label_dropout == 0.1
