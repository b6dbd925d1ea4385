"""What the presets promise: what each changes, and what comes of it at its full length."""

import re

import pytest
import torch

from scorefield import (
    Heun,
    Optim,
    Protocol,
    mode_coverage,
    noise_floor,
    relative_asymmetry,
    sliced_wasserstein,
)
from scorefield.config import presets
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.document import differences, read
from scorefield.config.resolve import load_config
from scorefield.evaluation.description import about
from scorefield.runs.run import Run
from scorefield.training.settings import TrainSettings
from scorefield.training.trainer import Trainer

SAMPLES = 4096

TERMS = ("asymmetry", "loops", "cycles", "boundary", "dual")
MODELS = ("m0", "m1", "m2", "m3", "m4")

# Of each ablation: what it extends, and what of it changes; a term that is switched off is named
# by one of its keys. Sets in a pair are those of toy and of digits.
ABLATIONS = {
    "m1_k1": ("m1", set()),
    "m1_k2": ("m1", {"objective.asymmetry.probes"}),
    "m1_lambda_only": ("m1", set()),
    "m1_both": ("m1", {"objective.loops"}),
    "m1_mu_only": ("m1_both", {"objective.asymmetry"}),
    "m1_loop_radius_small": ("m1_both", {"objective.loops.radii"}),
    "m1_loop_radius_smaller": ("m1_both", {"objective.loops.radii"}),
    "m2_dual": (
        "m2",
        {"field.parametrization", "objective.dual"}
        | {f"objective.law.{key}" for key in ("kind", "mean", "std")},
    ),
    "m2_distilled": ("m2", set()),
    "m3_all_noise": ("m3", (set(), {"objective.cycles.sigma_min"})),
    "m3_low_noise": (
        "m3",
        (
            {"objective.loops.sigma_max", "objective.cycles.sigma_max"},
            {
                "objective.loops.sigma_max",
                "objective.cycles.sigma_max",
                "objective.cycles.sigma_min",
            },
        ),
    ),
    "m3_cycle_len3_only": ("m3", set()),
    "m3_cycle_len345": ("m3", {"objective.cycles.lengths"}),
    "m3_mu1_only": ("m3", {"objective.cycles"}),
    "m3_mu2_only": ("m3", {"objective.loops"}),
    "m3_single_scale": ("m3", {"objective.loops.radii"}),
    "m3_left_quadrature": ("m3", {"objective.loops.quadrature", "objective.cycles.quadrature"}),
    "m4_alpha0": ("m4", {"objective.boundary"}),
    "m4_beta0": ("m4", {"objective.cycles"}),
    "m4_sigma_c_075": (
        "m4",
        ({"field.sigma_c", "objective.cycles.sigma_min"}, {"field.sigma_c"}),
    ),
}


def trained(name, *overrides):
    config = load_config(name, overrides)
    source = build_source(config)
    field = build_field(config, source)
    trainer = Trainer(
        field,
        source,
        build_objective(config, source),
        Optim(**config.optim.model_dump()),
        TrainSettings(**config.train.model_dump()),
        seed=config.seed,
        quiet=True,
    )
    return config, trainer.run()


def ablations(family):
    return [name for name in presets.names() if re.match(rf"{family}/m\d_", name)]


@pytest.mark.parametrize("family", ["toy", "digits"])
def test_an_ablation_changes_what_it_says_and_nothing_else(family):
    """A term that is switched on or off counts as one change."""
    here = set(ABLATIONS) - (set() if family == "toy" else {"m2_dual", "m2_distilled"})
    assert {name.partition("/")[2] for name in ablations(family)} == here
    for member, (base, wanted) in ((name, ABLATIONS[name]) for name in here):
        name = f"{family}/{member}"
        assert read(presets.path(name))["extends"] == base
        one, other = load_config(f"{family}/{base}"), load_config(name)
        assert other.folder.parts == (family, member, "seed0")
        changed = set()
        for key, _, _ in differences(one.document(), other.document()):
            section, _, rest = key.partition(".")
            term = rest.partition(".")[0]
            gone = section == "objective" and None in (
                getattr(one.objective, term),
                getattr(other.objective, term),
            )
            changed.add(f"{section}.{term}" if gone else key)
        if isinstance(wanted, tuple):
            wanted = wanted[0] if family == "toy" else wanted[1]
        assert changed == wanted | {"name", "description"}


@pytest.mark.parametrize(
    "name",
    # The teacher of a distillation is not a preset's.
    [n for n in (*ablations("toy"), *ablations("digits")) if n != "toy/m2_distilled"],
)
def test_an_ablation_trains_with_the_terms_that_it_has(name):
    """Two steps; a term that is switched off is not computed, the others are."""
    small = ["field.network.channels=8", "train.batch_size=32"] if name.startswith("digits") else []
    config, fit = trained(name, "train.steps=2", "train.log_every=1", *small)
    # The first step is due for every term; at low noise there may be no cycle to be found.
    computed = {term for term in TERMS if term in fit.history[0]}
    asked = {term for term in TERMS if getattr(config.objective, term) is not None}
    assert computed <= asked <= computed | {"cycles"}


@pytest.mark.parametrize("overrides", [(), ("optim.lr=1e-4", "train.steps=20")])
@pytest.mark.parametrize("name", ["toy/m1", "toy/m1_both", "digits/m3_cycle_len345"])
def test_a_run_knows_of_which_preset_it_is(name, overrides, tmp_path):
    config = load_config(name, overrides)
    facts = about(Run(tmp_path, config))
    assert facts["preset"] == name
    assert load_config(facts["preset"], facts["overrides"]) == config


@pytest.mark.parametrize("family", ["toy", "digits"])
def test_models_keep_what_a_comparison_at_equal_compute_needs(family):
    for member in MODELS:
        train = load_config(f"{family}/{member}").train
        assert train.keep is None
        assert train.steps // train.checkpoint_every == 10


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_toy_model_covers_all_modes_and_lies_at_the_noise_floor(model):
    """At 35 true network calls: 8 of 8 modes, and a sliced Wasserstein distance within three
    times that of two real sets."""
    config, fit = trained(f"toy/{model}")
    source, field = build_source(config), fit.field
    sampler = Heun.for_nfe(35)
    assert sampler.nfe == 35
    x = sampler.sample(field, SAMPLES, seed=0)
    assert mode_coverage(x, source.truth).value == 8
    floor = noise_floor(sliced_wasserstein, source.truth, SAMPLES, pairs=16, seed=1)
    assert floor.ratio(sliced_wasserstein(x, source.reference(SAMPLES, seed=2))) < 3
    sigmas = (0.02, 0.1, 0.35, 1.0, 5.0, 40.0)
    asymmetry = relative_asymmetry(field, source.truth, Protocol(sigmas, n=128))
    values = torch.tensor([e.value for _, e in asymmetry])
    if model == "m2":
        assert float(values.max()) < 1e-5
        exact = relative_asymmetry(field.double(), source.truth, Protocol(sigmas, n=128))
        assert max(e.value for _, e in exact) < 1e-12
    elif model == "m4":
        assert float(values[:3].max()) < 1e-5
        assert float(values[3:].min()) > 1e-5
    else:
        assert float(values.min()) > 1e-4


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_potential_of_the_digits_is_conservative(dtype, bound):
    """The U-Net under the head of the preset, after a few steps of training."""
    config, fit = trained(
        "digits/m2", "train.steps=3", "train.batch_size=8", "field.network.channels=8"
    )
    source, field = build_source(config), fit.field
    protocol = Protocol((0.002, 0.5, 40.0), n=2, dtype=dtype)
    data = source.reference(2, seed=0)
    for _, e in relative_asymmetry(field.to(dtype), data, protocol):
        assert e.value < bound
