"""Trials of configurations in small, and what configurations cost."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scorefield import Engine
from scorefield.config import presets, schema
from scorefield.config.build import build_field, build_objective, build_source, check_sampler
from scorefield.config.resolve import load_config
from scorefield.engine import exact
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.smoke import _COUNT, _shorten, _smaller, reduced, smoke
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.runs.cost import cost_of, step_of
from scorefield.runs.run import Run

KINDS, LEAST_SIDE = ("digits", "images", "latents"), 8


def smallest(config):
    """The smallest version of a configuration that a trial may take, without counting costs, with
    its data and its field without weights.
    """
    document, source = config.document(), build_source(config)
    document["data"] = {"kind": "random", "shape": list(source.shape), "classes": source.classes,
                        "count": _COUNT}  # fmt: skip
    _shorten(document, config)
    for smaller in reversed([document, *(one for _, one in _smaller(document))]):
        if smaller["data"]["shape"][-1] < LEAST_SIDE:
            continue
        try:
            small = schema.validate(smaller, config.name)
            source = build_source(small)
            field = build_field(small, source, device="meta")
        except UserError:
            continue
        return small, source, field
    raise AssertionError(f"{config.name} cannot be built")


def cost(name, *overrides):
    config = load_config(name, overrides)
    return cost_of(config, build_source(config))


def test_a_trial_keeps_the_network_where_it_fits_and_says_what_it_changes():
    config, changed = reduced(load_config("fashion_mnist/m3"))
    assert config.field == load_config("fashion_mnist/m3").field
    assert config.data.kind == "random"
    assert config.data.shape == (1, 28, 28)
    assert config.objective.cycles.every == config.objective.loops.every == 1
    assert changed[0] == "random data of shape 1×28×28 in place of fashion_mnist"
    assert changed[-1] == "the network is the configuration's own"


@pytest.mark.slow
def test_a_trial_has_a_narrower_network_where_it_does_not_fit():
    config, changed = reduced(load_config("cifar10/m0"))
    assert config.field.network.channels < 128
    assert config.data.shape == (3, 32, 32)
    assert f"channels {config.field.network.channels} in place of 128" in changed[-1]


def test_a_trial_keeps_the_smallest_network_that_can_be_built():
    """Widths of DDPM are multiples of 32 and six levels need 32 pixels: nothing that can be built
    is within the limits."""
    config, changed = reduced(load_config("bedroom/ddpm_vp"))
    assert config.data.shape == (3, 32, 32)
    assert config.field.network.channels == 32
    assert "channels 32 in place of 128, images of 3×32×32" in changed[-1]
    build_field(config, build_source(config), device="meta")


@pytest.mark.slow
def test_a_trial_of_a_width_that_is_no_power_of_two_is_within_the_limits():
    config, changed = reduced(load_config("imagenet512/m4_equal_cost"))
    assert "channels 8 in place of 96, images of 3×64×64" in changed[-1]
    assert cost_of(config, build_source(config)).call < 2.5e8


def test_a_linear_map_costs_what_it_has_weights():
    """Of the network of m0 on the ring: each weight of a matrix is one multiply-add; its gradient
    takes one more in the weights, and one in the activations, except in the two first layers."""
    config = load_config("toy/m0")
    network = build_field(config, build_source(config)).backbone
    weights = sum(p.numel() for p in network.parameters() if p.dim() == 2)
    found = cost("toy/m0")
    assert found.call == weights
    assert 2 * weights < found.step < 3 * weights
    assert found.memory == 20 * found.parameters


@pytest.mark.slow
def test_costs_are_those_that_are_published():
    """Multiply-adds of an evaluation of ADM, which the code of DiT counts as 1,120 and 1,983 GFLOP;
    those of a potential are about twice those of its network."""
    assert abs(cost("imagenet512/m0").call / 1983e9 - 1) < 0.01
    assert abs(cost("imagenet256/m0").call / 1120e9 - 1) < 0.01
    assert 1.9 < cost("mnist/m2").call / cost("mnist/m0").call < 2.1


@pytest.mark.parametrize("family", ["emoji", "fashion_mnist"])
def test_a_hybrid_of_equal_cost_costs_as_much_as_m0(family):
    assert abs(cost(f"{family}/m4_equal_cost").step / cost(f"{family}/m0").step - 1) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(f"fashion_mnist/m{k}" for k in range(5)),
        *("toy/m3", "digits/m4", "atoms/consistency", "cifar10/m0", "cifar10/m4", "mnist/m2"),
        *("cifar10/ncsnpp", "imagenet64/m0", "lsun256/m3", "imagenet256_latent/m0"),
    ],
)
def test_a_trial_trains_samples_and_evaluates(name, tmp_path):
    found = smoke(load_config(name), tmp_path, Engine())
    assert Run.open(found.folder).finished
    assert {"validation loss", "distance of samples"} <= found.numbers.keys()
    measured = {k: v for k, v in found.numbers.items() if isinstance(v, Estimate)}
    assert {"denoising_loss", "loop_circulation", "consistency", "fokker_planck"} <= measured.keys()
    assert all(math.isfinite(e.value) for e in measured.values())
    asymmetry = found.numbers["relative_asymmetry"].value
    assert 0 <= asymmetry < (1e-5 if name.endswith("m2") else 1)
    assert not (found.folder / "eval").exists()


@pytest.mark.slow
def test_every_preset_of_images_has_a_trial_that_builds():
    """At the smallest size, without weights: the network gives a score of the shape of an image,
    and the losses and the sampler fit. `tools/smoke.py` trains all of them, which takes hours.
    """
    loaded = {name: load_config(name) for name in presets.names()}
    # Data of one's own have no shape before they are there.
    images = [n for n, c in loaded.items() if c.data.kind in KINDS and not n.startswith("images/")]
    assert len(images) > 100
    for name in images:
        config, source, field = smallest(loaded[name])
        build_objective(config, source)
        check_sampler(config.sampler, field.sde)
        x = torch.zeros(2, *source.shape, device="meta")
        t = torch.full((2,), field.sde.t_max, device="meta")
        classes = None if field.unlabelled else torch.zeros(2, dtype=torch.int64, device="meta")
        assert field.score(x, t, classes).shape == x.shape, name


def test_a_step_has_the_regularisers_that_are_due():
    """Loops and cycles are evaluations with a gradient, as those of the loss, at the nodes of
    their edges: one by the midpoint rule, two by that of Gauss."""
    config = load_config("toy/m3")
    one, step = cost("toy/m3"), step_of(config, build_source(config))
    loops, cycles = config.objective.loops, config.objective.cycles
    assert (loops.quadrature, cycles.quadrature) == ("midpoint", "gauss-2")
    around = loops.rows * len(loops.radii) * loops.sides / loops.every
    along = 2 * cycles.cycles * sum(cycles.lengths) / cycles.every
    assert step.calls == config.train.batch_size + around + along
    # But for the products of areas, hundreds beside a hundred million.
    assert step.multiply_adds == pytest.approx(one.step * step.calls, rel=1e-5)


def test_a_step_takes_what_is_counted_as_it_is_computed():
    config = load_config("toy/m1")
    source = build_source(config)
    field, objective = build_field(config, source), build_objective(config, source)
    noise, batch = Noise(0), config.train.batch_size
    x = source.batch(noise, 0, batch)
    t, z = objective.draw(field, noise, torch.arange(batch), 0)
    with FlopCounterMode(display=False) as loss:
        objective.base(field, Batch(x, t, z)).backward()
    total = loss.get_total_flops()
    for term in objective.due(0).values():
        with exact(), FlopCounterMode(display=False) as own:
            term(field, objective.denoising.law, x, noise, 0).backward()
        total += own.get_total_flops() / term.every
    assert step_of(config, source).multiply_adds == pytest.approx(total / 2, rel=1e-12)
