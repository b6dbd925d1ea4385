import math

import pytest
import torch

from scorefield import (
    DDIM,
    DDPM,
    EDM,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    Cosine,
    DenoiserPrediction,
    DenoisingScoreMatching,
    DiscreteVP,
    DPMSolverPlusPlus2M,
    Euler,
    EulerMaruyama,
    Heun,
    HybridField,
    Langevin,
    NCSNpp,
    NoisePrediction,
    Optim,
    PotentialField,
    PreconditionedField,
    PredictorCorrector,
    RectifiedFlow,
    ReverseDiffusion,
    SubVP,
    TimeLabel,
    UNet,
    UniformTime,
    VelocityPrediction,
    VPrediction,
)
from scorefield.config.base import build
from scorefield.config.build import build_field, build_objective, build_sampler, build_source
from scorefield.config.resolve import load_config
from scorefield.config.sampler import EulerMethod, HeunMethod
from scorefield.errors import ConfigError
from scorefield.networks.embedding import NoiseTable
from scorefield.networks.ncsn import NCSN, NCSNv2
from scorefield.samplers.ode import ProbabilityFlow
from scorefield.sde.discrete import DDPMSteps, EulerForward, SMLDSteps
from scorefield.training.settings import TrainSettings

SMALL = ["field.network.hidden=8", "field.network.depth=1", "field.network.embedding=4"]


def built(name, *overrides):
    config = load_config(name, overrides)
    source = build_source(config)
    return config, build_field(config, source), build_objective(config, source)


FLOW = ["sde={kind: rectified_flow}", "field.label=unit_time", "objective.weighting=velocity"]


def test_flow_matching_is_a_process_a_prediction_and_a_weight():
    choices = ["field.parametrization=velocity", "objective.law={kind: uniform}", *SMALL]
    _, field, objective = built("toy/m0", *FLOW, *choices, "objective.pairing=transport")
    assert field.sde == RectifiedFlow()
    assert field.parametrization == VelocityPrediction(TimeLabel(1.0))
    loss = DenoisingScoreMatching("velocity", UniformTime(), pairing="transport")
    assert objective.denoising == loss


@pytest.mark.parametrize(
    ("name", "kind"), [("denoiser", DenoiserPrediction), ("v", VPrediction), ("noise", None)]
)
def test_what_a_network_predicts_is_a_key(name, kind):
    _, field, _ = built("toy/m0", f"field.parametrization={name}", *SMALL)
    assert isinstance(field.parametrization, kind or NoisePrediction)


@pytest.mark.parametrize(
    ("betas", "levels"), [("cosine", 50), ("sigmoid", 20), ("[0.1, 0.2, 0.5]", 3)]
)
def test_a_table_is_a_name_or_numbers(betas, levels):
    table = f"sde={{kind: discrete_vp, betas: {betas}, levels: {levels}}}"
    config, field, _ = built("toy/m0", table, "field.label=time", *SMALL)
    given = [0.1, 0.2, 0.5] if levels == 3 else betas
    assert field.sde == DiscreteVP(betas=given, levels=levels)
    assert field.parametrization.label == TimeLabel(levels - 1.0)
    assert config.document()["sde"]["betas"] == given


@pytest.mark.parametrize(
    ("betas", "match"),
    [
        ("[0.1, 0.2]", r"sde\.levels is 1000, sde\.betas has 2 numbers"),
        ("[0.1, 2]", r"sde\.betas is \[0\.1, 2\], it must be one of linear, scaled_linear"),
        ("cosin", r"sde\.betas is 'cosin', it must be one of linear"),
    ],
)
def test_what_is_no_table_is_refused(betas, match):
    with pytest.raises(ConfigError, match=match):
        load_config("toy/m0", [f"sde={{kind: discrete_vp, betas: {betas}}}"])


@pytest.mark.parametrize("family", ["toy", "digits"])
@pytest.mark.parametrize(
    ("member", "kind", "terms"),
    [
        ("m0", PreconditionedField, []),
        ("m1", PreconditionedField, ["asymmetry"]),
        ("m2", PotentialField, []),
        ("m3", PreconditionedField, ["loops", "cycles"]),
        ("m4", HybridField, ["cycles", "boundary"]),
    ],
)
def test_the_five_models_are_what_they_are_called(family, member, kind, terms):
    config, field, objective = built(f"{family}/{member}")
    assert type(field) is kind
    assert list(objective.regularizers) == terms
    assert isinstance(field.sde, EDM)
    if isinstance(field, HybridField):
        assert type(field.low) is PotentialField
        assert type(field.high) is PreconditionedField
        assert field.sigma_c == config.field.sigma_c


@pytest.mark.parametrize("name", ["toy/m1", "toy/m3", "toy/m4", "digits/m1", "digits/m4"])
def test_every_key_of_a_regulariser_reaches_it(name):
    config, _, objective = built(name)
    for term, regularizer in objective.regularizers.items():
        section = getattr(config.objective, term)
        for key, value in section.model_dump(exclude={"balance"}, exclude_none=True).items():
            assert getattr(regularizer, key) == value
        balance = getattr(section, "balance", None)
        if balance is not None:
            for key, value in balance.model_dump().items():
                assert getattr(regularizer.weight, key) == value


def test_sigma_data_is_that_of_the_data_unless_it_is_given():
    _, field, objective = built("toy/m0")
    assert field.parametrization.sigma_data == pytest.approx(math.sqrt(8 + 0.35**2), rel=1e-12)
    assert objective.denoising.sigma_data == field.parametrization.sigma_data
    _, field, objective = built("toy/m0", "field.sigma_data=0.5")
    assert field.parametrization.sigma_data == objective.denoising.sigma_data == 0.5


@pytest.mark.parametrize(
    ("override", "sde"),
    [
        (["sde={kind: ve, sigma_min: 0.1, sigma_max: 3.0}"], VE(0.1, 3.0)),
        (["sde.kind=vp", "sde.beta_max=9.0"], VP(0.1, 9.0)),
        (["sde.kind=subvp", "sde.t_min=1e-3"], SubVP(t_min=1e-3)),
        (["sde.kind=cosine", "sde.offset=0.01"], Cosine(0.01)),
        (
            ["sde={kind: cosine, offset: 0.0, margin: 0.008, t_max: 1.0}"],
            Cosine(0.0, t_max=1.0, margin=0.008),
        ),
        (["sde.prior_mean=2.0"], EDM(0.01, 40.0, 2.0)),
        (["sde.prior_mean=[1, 2.5]"], EDM(0.01, 40.0, (1.0, 2.5))),
        (["sde={kind: ve, t_min: 1e-5}"], VE(0.01, 40.0, t_min=1e-5)),
        (["sde={kind: discrete_vp, levels: 100}"], DiscreteVP(levels=100)),
    ],
)
def test_the_process(override, sde):
    config, field, _ = built("toy/m0", *override)
    assert field.sde == sde
    assert build_source(config).truth.sde == sde


def test_the_seed_decides_the_weights():
    def weights(seed):
        return torch.cat([p.flatten() for p in built("toy/m4", f"seed={seed}")[1].parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_the_networks_of_a_hybrid_start_from_unrelated_weights():
    low = ["field.low_network={kind: mlp, hidden: 128, depth: 3, embedding: 64}"]
    _, field, _ = built("toy/m4", *low)
    branches = (field.low.backbone, field.high.backbone)
    a, b = (network.layers[0].weight.detach().flatten() for network in branches)
    correlation = torch.corrcoef(torch.stack((a, b)))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(a.numel())


def test_every_parameter_of_a_potential_has_a_gradient():
    _, field, _ = built("toy/m2", *SMALL)
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    field.score(x, 1.0).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in field.parameters())


def test_the_optimiser_and_the_length_of_the_training():
    optim = "kind: adamw, lr: 0.5, betas: [0.1, 0.2], eps: 0.3, weight_decay: 0.4, warmup: 3"
    train = "steps: 9, batch_size: 8, checkpoint_every: 7, log_every: 6, keep: 5, ema_decay: null"
    train += ", ema_halflife: 1000.0, snapshot_every: 4, accumulate: 2, max_skipped: 3"
    changes = [f"optim={{{optim}, decay: linear, clip: 7.0}}", f"train={{{train}}}"]
    config = load_config("toy/m0", changes)
    assert build(config.optim, "optim", Optim) == Optim(
        "adamw", 0.5, (0.1, 0.2), 0.3, 0.4, warmup=3, decay="linear", clip=7.0
    )
    assert build(config.train, "train", TrainSettings) == TrainSettings(
        9, 8, 7, 6, None, 5, 1000.0, 4, 2, 3
    )


def test_the_sampler():
    section = EulerMethod(
        kind="euler", steps=5, rho=3.0, churn=2.0, churn_min=0.1, churn_max=9.0, churn_noise=1.1
    )
    assert build_sampler(section) == Euler(5, 3.0, 2.0, 0.1, 9.0, 1.1)
    assert build_sampler(HeunMethod(kind="heun", steps=4)) == Heun(4, churn_max=math.inf)


@pytest.mark.parametrize(
    ("section", "sampler"),
    [
        (
            "kind: predictor_corrector, steps: 7, corrector: langevin, snr: 0.2, "
            "corrector_steps: 3",
            PredictorCorrector(7, ReverseDiffusion(), Langevin(0.2, 3)),
        ),
        (
            "kind: predictor_corrector, predictor: none, corrector: annealed, norm: batch",
            PredictorCorrector(18, None, AnnealedLangevin(0.16)),
        ),
        (
            "kind: predictor_corrector, steps: 9, predictor: euler_maruyama, "
            "probability_flow: true, discretization: euler, first: predictor, denoise: false",
            PredictorCorrector(
                9,
                EulerMaruyama(probability_flow=True),
                discretization=EulerForward(9),
                first="predictor",
                denoise=False,
            ),
        ),
        (
            "kind: predictor_corrector, steps: 30, predictor: ancestral, discretization: ddpm, "
            "t_end: 0.001, spacing: logsnr",
            PredictorCorrector(
                30, Ancestral(), discretization=DDPMSteps(30), t_end=1e-3, spacing="logsnr"
            ),
        ),
        (
            "kind: predictor_corrector, steps: 5, discretization: smld, corrector: langevin, "
            "norm: batch",
            PredictorCorrector(
                5, ReverseDiffusion(), Langevin(0.16, norm="batch"), discretization=SMLDSteps(5)
            ),
        ),
        (
            "kind: ode, rtol: 1e-3, atol: 1e-4, t_end: 0.1, denoise: false, max_calls: 50",
            ProbabilityFlow(1e-3, 1e-4, 0.1, False, 50),
        ),
        ("kind: ddim, steps: 6, eta: 0.5, spacing: time", DDIM(6, 0.5, "time")),
        ("kind: dpm_solver, steps: 8, rho: 5.0", DPMSolverPlusPlus2M(8, rho=5.0)),
    ],
)
def test_every_key_of_a_sampler_reaches_it(section, sampler):
    assert build_sampler(load_config("toy/m0", [f"sampler={{{section}}}"]).sampler) == sampler


TABLE = ["sde={kind: ve}", "field.label=index", "field.levels=10", "field.parametrization=score"]


@pytest.mark.parametrize(
    ("kind", "overrides", "network"),
    [
        ("unet", [], UNet),
        ("ncsnpp", ["field.network.scale_by_sigma=false", "field.network.channels=16"], NCSNpp),
        ("ddpm", ["field.network.channels=32"], DDPM),
        ("ncsn", [*TABLE, "field.network.channels=8"], NCSN),
        ("ncsnv2", [*TABLE, "field.network.channels=8"], NCSNv2),
    ],
)
def test_every_network_of_images_has_a_score(kind, overrides, network):
    """With two levels for eight pixels, on the digits, which are centred."""
    small = [] if kind in ("ncsn", "ncsnv2") else ["field.network.multipliers=[1, 2]"]
    config, field, _ = built("digits/m0", f"field.network.kind={kind}", *small, *overrides)
    assert type(field.backbone) is network
    assert getattr(field.backbone, "centered", True)
    x = build_source(config).reference(2, 0)
    score = field.score(x, field.sde.t_max)
    assert score.shape == x.shape
    assert bool(score.isfinite().all())


def test_a_network_has_the_noise_levels_of_the_process():
    changes = ["sde={kind: ve, sigma_min: 0.02, sigma_max: 7.0}", "field.label=index"]
    network = ["field.levels=12", "field.network.embedding=positional"]
    _, field, objective = built("digits/ncsnpp_ve", *changes, *network, "objective.law.kind=table")
    assert field.backbone.division == NoiseTable(0.02, 7.0, 12)
    assert objective.denoising.law.levels == 12


def test_the_classes_of_a_network_are_those_of_the_data():
    _, field, objective = built("digits/ncsnpp_classes", "objective.label_dropout=0.25")
    assert field.classes == 10
    assert objective.label_dropout == 0.25
    config = load_config("celeba/ncsnpp_ve", ["field.network.classes=true"])
    with pytest.raises(ConfigError, match=r"field\.network\.classes needs data with classes"):
        build_field(config, build_source(config))


@pytest.mark.parametrize(
    ("name", "override", "told"),
    [
        ("toy/m4", "field.sigma_c=50.0", "field.sigma_c is 50, it must lie between"),
        ("toy/m1", "objective.asymmetry.sigma_max=0.001", "objective.asymmetry is evaluated at"),
        ("digits/m0", "field.network.multipliers=[1, 2, 2, 2, 2]", "field.network: "),
        ("digits/m0", "field.network.attention=[5]", "field.network.attention "),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(name, override, told):
    config = load_config(name, [override])
    source = build_source(config)
    build = build_objective if told.startswith("objective") else build_field
    with pytest.raises(ConfigError) as error:
        build(config, source)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("data", [{"std": 0.0}, {"radius": math.inf}, {"modes": 10**30}])
def test_data_that_a_target_refuses_is_told_by_its_section(data):
    config = load_config("toy/m0")
    wrong = config.model_copy(update={"data": config.data.model_copy(update=data)})
    with pytest.raises(ConfigError, match=r"^data: "):
        build_source(wrong)
