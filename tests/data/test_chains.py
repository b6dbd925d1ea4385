"""Draws of Markov chains as data, and the presets that are trained on them."""

import pytest
import torch

from scorefield import EGNN, HMC, ChainSource, DoubleWell
from scorefield.cli import main
from scorefield.config import presets
from scorefield.config.build import build_field, build_source
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError, UserError
from scorefield.noise import Noise

KERNEL = HMC(0.12, 1.0, 4)
QUICK = ["data.chains=8", "data.draws=2", "data.burn_in=3", "data.every=2"]


def source(**changed):
    return ChainSource(
        DoubleWell(), KERNEL, **{"chains": 8, "draws": 3, "burn_in": 4, "every": 2, **changed}
    )


def test_every_fourth_chain_is_held_out_and_chains_do_not_see_each_other():
    data = source()
    train, test = data.stored("train"), data.stored("test")
    assert (train.shape, test.shape) == ((18, 3, 2), (6, 3, 2))
    assert (data.count("train"), data.count("test"), data.size) == (18, 6, 18)
    # A draw, chain by chain; the first chains of more are the same, and so are the first draws.
    longer = source(chains=16, draws=4)
    assert torch.equal(longer.stored("train").reshape(4, 12, 3, 2)[:3, :6].flatten(0, 1), train)
    assert torch.equal(longer.stored("test").reshape(4, 4, 3, 2)[:3, :2].flatten(0, 1), test)
    # A draw is the state after so many moves, whatever was drawn before.
    dense = source(every=1, burn_in=5, draws=5).stored("test").reshape(5, 2, 3, 2)
    assert torch.equal(dense[::2].flatten(0, 1), test)
    assert not torch.equal(source(seed=1).stored("test"), test)


def test_no_seed_of_a_sampler_has_the_noise_of_the_chains():
    """Moves have the same addresses in both: those of a sampler would be those of its data."""
    index = torch.arange(4)
    drawn = [Noise(seed).normal("a", (2,), index) for seed in range(8)]
    for seed in range(8):
        own = source(seed=seed)._noise.normal("a", (2,), index)
        assert not any(torch.equal(own, one) for one in drawn)
        drawn.append(own)


def test_chains_that_do_not_move_are_an_error():
    stuck = ChainSource(DoubleWell(), HMC(2.0, 1.0, 4), 8, 1, 4, 1, name="wells")
    with pytest.raises(UserError, match=r"the chains of wells .*: make step smaller"):
        stuck.stored("train")
    with pytest.raises(UserError, match="chains must be an integer of at least 4"):
        source(chains=3)


@pytest.mark.parametrize("name", ["dw4/m0", "dw4/m2", "lj13/m0", "lj13/m2"])
def test_a_preset_is_what_it_is_called(name):
    config = load_config(name, QUICK)
    data = build_source(config)
    field = build_field(config, data)
    assert isinstance(field.backbone, EGNN)
    assert field.has_potential == name.endswith("m2")
    shape = (3, 2) if name.startswith("dw4") else (12, 3)
    assert field.domain.shape == data.shape == shape
    assert type(data.energy).__name__ == ("DoubleWell" if shape == (3, 2) else "LennardJones")
    low, high = field.sde.level_range
    assert all(low < sigma < high for sigma in config.eval.sigmas)
    assert 1 < data.std < 2.5 if shape == (3, 2) else 0.3 < data.std < 1.5


def test_the_families_differ_in_their_field_only():
    for family in ("dw4", "lj13"):
        assert presets.matching(f"{family}/*") == [f"{family}/m0", f"{family}/m2"]
        one, other = (load_config(f"{family}/{m}").document() for m in ("m0", "m2"))
        changed = {key for key in one if one[key] != other[key]}
        assert changed == {"name", "description", "field"}


def test_training_a_preset_is_one_command(tmp_path):
    small = ["train.steps=2", "train.batch_size=4", "field.network.hidden=4", "eval.samples=4"]
    assert main(["train", "dw4/m0", *QUICK, *small, "--root", str(tmp_path)]) == 0
    assert [file.parts[-4] for file in tmp_path.rglob("metrics.csv")] == ["dw4"]


def test_particles_need_their_network():
    with pytest.raises(ConfigError, match="'double_well' needs 'egnn'"):
        load_config("dw4/m0", ["field.network={kind: mlp}"])
