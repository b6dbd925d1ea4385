"""Experiments on atoms: what a configuration may say, and what comes of it."""

import math
from dataclasses import replace

import pytest
import torch

from scorefield import (
    EDM,
    VE,
    Consistency,
    EquivariantMLP,
    FokkerPlanck,
    HybridField,
    Optim,
    PotentialField,
    PreconditionedField,
    PseudoAtoms,
    Regression,
    SymmetrizedMLP,
    TargetSource,
)
from scorefield.config import presets
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.document import differences, read
from scorefield.config.resolve import load_config
from scorefield.domain import Torus
from scorefield.errors import ConfigError
from scorefield.evaluation.measure import validate
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.training.settings import TrainSettings
from scorefield.training.trainer import Trainer
from tests.planted import Drifting

EXPERIMENTS = {
    "no_regularizer": None,
    "analytical_regression": "regression",
    "fokker_planck": "fokker_planck",
    "consistency": "consistency",
    "consistency_with_analytical_guide": "consistency",
}
SMALL = ["field.network.hidden=8", "field.network.depth=1", "field.network.embedding=4"]


def built(name, *overrides):
    config = load_config(name, overrides)
    source = build_source(config)
    return config, source, build_field(config, source), build_objective(config, source)


# ---------------------------------------------------------------------------------------- presets


def test_the_five_experiments_and_a_network_differ_in_what_they_say_and_nothing_else():
    names = [name for name in presets.names() if name.startswith("atoms/")]
    assert {name.partition("/")[2] for name in names} == {*EXPERIMENTS, "equivariant"}
    plain = load_config("atoms/no_regularizer").document()
    for name in names:
        changed = {key for key, _, _ in differences(plain, load_config(name).document())}
        changed -= {"name", "description"}
        term = EXPERIMENTS.get(name.partition("/")[2])
        where = "field.network." if name == "atoms/equivariant" else f"objective.{term}"
        assert all(key.startswith(where) for key in changed), (name, changed)
        assert bool(changed) == (name != "atoms/no_regularizer")
        # A real merge: a preset says what differs, and the base the rest.
        said = read(presets.path(name))
        assert said.keys() <= {"extends", "description", "objective", "field"}


def test_the_guided_consistency_differs_from_the_other_in_its_guide():
    one, other = (load_config(f"atoms/{n}") for n in EXPERIMENTS if n.startswith("consistency"))
    changed = {key for key, _, _ in differences(one.document(), other.document())}
    assert changed == {"name", "description", "objective.consistency.guide"}


@pytest.mark.parametrize("member", [*EXPERIMENTS, "equivariant"])
def test_a_preset_is_what_it_is_called(member):
    config, source, field, objective = built(f"atoms/{member}")
    term = EXPERIMENTS.get(member)
    assert list(objective.regularizers) == ([] if term is None else [term])
    kind = EquivariantMLP if member == "equivariant" else SymmetrizedMLP
    assert type(field.backbone) is kind
    assert field.domain == source.truth.domain == Torus((2, 1), 1.0)
    assert field.sde == source.truth.sde == VE(0.001, 0.5)
    assert objective.denoising.weighting == "score"
    assert min(config.eval.sigmas) > field.sde.sigma_min
    assert max(config.eval.sigmas) < field.sde.sigma_max
    assert config.train.keep is None
    assert config.train.steps // config.train.checkpoint_every == 10


@pytest.mark.parametrize("member", [*EXPERIMENTS, "equivariant"])
def test_a_preset_trains_with_the_term_that_it_has(member):
    config, source, field, objective = built(f"atoms/{member}", *SMALL)
    settings = TrainSettings(steps=2, batch_size=16, log_every=1)
    trainer = Trainer(field, source, objective, Optim(**config.optim.model_dump()), settings)
    trainer.quiet = True
    row = trainer.run().history[0]
    computed = {"regression", "fokker_planck", "consistency"} & set(row)
    assert computed == ({EXPERIMENTS[member]} if EXPERIMENTS.get(member) else set())
    assert all(math.isfinite(value) for value in row.values())


# --------------------------------------------------------------------------- parts and their keys


def test_the_data():
    overrides = ["data={positions: [[0.1, 0.5], [1, 2.5], [0.2, 0.3]], std: 0.1, period: [1, 3]}"]
    config, source, field, _ = built("atoms/no_regularizer", *overrides, *SMALL, "sde.sigma_max=3")
    law = source.truth
    assert isinstance(source, TargetSource)
    assert isinstance(law, PseudoAtoms)
    assert source.name == "atoms"
    assert law.domain == field.domain == Torus((3, 2), (1.0, 3.0))
    assert (law.width, law.positions[1].tolist()) == (0.1, [0.0, 2.5])
    assert config.document()["data"]["period"] == [1.0, 3.0]
    assert load_config("atoms/no_regularizer", overrides) == load_config(
        "atoms/no_regularizer", overrides
    )
    x = source.reference(5, 0)
    moved = x + torch.tensor([1.0, -3.0])
    torch.testing.assert_close(field.score(moved, 0.5), field.score(x, 0.5), rtol=1e-3, atol=1e-3)


def test_every_key_of_a_network_reaches_it():
    for kind, network in (("symmetrized_mlp", SymmetrizedMLP), ("equivariant_mlp", EquivariantMLP)):
        own = f"field.network={{kind: {kind}, hidden: 6, depth: 2, harmonics: 3, embedding: 8}}"
        _, _, field, _ = built("atoms/no_regularizer", own, "seed=4")
        twin = network((2, 1), 1.0, hidden=6, depth=2, harmonics=3, embedding=8, seed=4)
        assert type(field.backbone) is network
        for one, other in zip(field.backbone.parameters(), twin.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["symmetrized_mlp", "equivariant_mlp"])
def test_potentials_and_hybrids_are_periodic_and_every_parameter_is_trained(kind):
    network = f"{{kind: {kind}, hidden: 6, depth: 2, embedding: 4}}"
    hybrid = ["field.kind=hybrid", "field.sigma_c=0.05", f"field.low_network={network}"]
    for overrides, wanted in ((["field.kind=potential"], PotentialField), (hybrid, HybridField)):
        own = f"field.network={network}"
        _, source, field, _ = built("atoms/no_regularizer", own, *overrides)
        assert type(field) is wanted
        assert field.domain == source.truth.domain
        field.double()
        x = source.reference(8, 0).double()
        for t in (0.1, 0.9):
            score = field.score(x, t)
            torch.testing.assert_close(field.score(x + 1, t), score, rtol=1e-9, atol=1e-9)
            score.square().sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in field.parameters())


def test_the_field_of_other_data_has_their_domain():
    _, source, field, _ = built("toy/m0")
    assert type(field) is PreconditionedField
    assert field.domain == source.truth.domain


@pytest.mark.parametrize("member", EXPERIMENTS)
def test_every_key_of_a_regulariser_reaches_it(member):
    config, _, _, objective = built(f"atoms/{member}")
    for name, regularizer in objective.regularizers.items():
        term = config.objective.terms[name]
        for key, value in term.model_dump(exclude={"guide"}).items():
            # Where nothing is said, the regulariser chooses.
            assert value is None or getattr(regularizer, key) == value


def test_oracles_are_the_known_law_under_the_process():
    _, source, field, objective = built("atoms/analytical_regression", "sde.sigma_max=0.7")
    (regression,) = objective.regularizers.values()
    assert isinstance(regression, Regression)
    assert regression.truth.field.sde == field.sde
    x = source.reference(4, 0)
    assert torch.equal(regression.truth.field.score(x, 0.5), source.truth.score(x, 0.5))
    for member, guided in (("consistency", False), ("consistency_with_analytical_guide", True)):
        (consistency,) = built(f"atoms/{member}")[3].regularizers.values()
        assert isinstance(consistency, Consistency)
        assert (consistency.leader is not None) == guided
    assert isinstance(built("atoms/fokker_planck")[3].regularizers["fokker_planck"], FokkerPlanck)


def test_regularisers_serve_data_in_flat_space_too():
    terms = "objective={regression: {weight: 1}, fokker_planck: {weight: 1e-3}}"
    guided = "objective.consistency={weight: 0.1, guide: oracle}"
    _, source, field, objective = built("toy/m0", terms, guided, *SMALL)
    assert list(objective.regularizers) == ["regression", "fokker_planck", "consistency"]
    settings = TrainSettings(steps=2, batch_size=8, log_every=1)
    row = Trainer(field, source, objective, Optim(), settings, quiet=True).run().history[-1]
    assert all(math.isfinite(row[name]) for name in objective.regularizers)


# --------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("field.parametrization=edm", "skip connection is not periodic: data of kind 'atoms'"),
        ("field={kind: potential, head: inner}", "field.head is 'inner', of which no potential"),
        ("sde.kind=vp", "sde.kind is 'vp', which shrinks the data"),
        ("objective.pairing=transport", "objective.pairing is 'transport', which takes points of"),
        ("objective.augmentation={}", "objective.augmentation is for images, data.kind is 'atoms'"),
        ("sde.prior_mean=0.5", "sde.prior_mean is 0.5, it must be 0: data of kind 'atoms'"),
        ("field.network={kind: mlp}", "'atoms' needs 'symmetrized_mlp' or 'equivariant_mlp'"),
        ("data={kind: ring}", "is 'symmetrized_mlp', but data of kind 'ring' needs 'mlp'"),
        ("data={kind: digits}", "but data of kind 'digits' needs 'unet' or"),
        ("data.positions=[]", "data.positions is [], it must be a list of at least 1"),
        ("data.positions=[[]]", "data.positions.0 is [], it must be a list of at least 1"),
        ("data.positions=[0.2, 0.3]", "data.positions.0 is 0.2, it must be a list"),
        ("data.positions=[[a]]", "data.positions.0.0 is 'a', it must be a number"),
        ("data.positions=[[0.1], [0.2, 0.3]]", "has places of 1 and of 2 coordinates"),
        ("data.period=[1.0, 2.0]", "data.period has 2 values, it must have one for each of the 1"),
        ("data.period=0", "data.period is 0, it must be a number from 1e-06 to 1e+06, or a list"),
        ("data.period=wide", "data.period is 'wide', it must be a number"),
        ("data.std=0", "data.std is 0"),
        ("field.network.hiden=3", "'field.network.hiden'; the nearest is 'hidden'"),
        ("objective.regression.rows=3", "objective.regression.weight is missing"),
        ("objective.consistency={weight: 1, guide: truth}", "it must be 'model' or 'oracle'"),
        ("objective.consistency={weight: 1, steps: 100}", "consistency.grid is 100, it must be"),
        ("objective.consistency={weight: 1, gradient: both, target: kernel}", "'both' needs"),
        ("objective.fokker_planck={weight: 1, form: lai}", "objective.fokker_planck.form is 'lai'"),
    ],
)
def test_a_wrong_value_of_atoms_is_refused_in_one_sentence(override, told):
    with pytest.raises(ConfigError) as error:
        load_config("atoms/no_regularizer", [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("term", ["regression", "fokker_planck", "consistency"])
def test_uniform_points_need_a_torus(term):
    with pytest.raises(ConfigError, match=f"objective.{term}.points 'uniform' needs a torus"):
        load_config("toy/m0", [f"objective.{term}={{weight: 1, points: uniform}}"])


@pytest.mark.parametrize(
    "changes",
    [
        ["sde.kind=discrete_vp", "sde.levels=100"],
        ["sde.kind=ve", "field.label=index", "field.levels=10"],
    ],
)
def test_a_table_of_levels_has_no_derivative_in_time(changes):
    load_config("toy/m0", changes)
    for term in ("fokker_planck", "dual"):
        with pytest.raises(ConfigError, match=rf"objective.{term} differentiates the field in"):
            load_config("toy/m2", [*changes, f"objective.{term}.weight=1"])


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("digits/m0", ["objective.regression.weight=1"], "objective.regression needs data whose"),
        (
            "digits/m0",
            ["objective.consistency={weight: 1, guide: oracle}"],
            "objective.consistency.guide needs data whose distribution is known, that of digits",
        ),
        (
            "atoms/no_regularizer",
            ["objective.regression={weight: 1, sigma_max: 2.0}"],
            "objective.regression is evaluated at noise levels from 0.001 to 2",
        ),
    ],
)
def test_what_an_objective_lacks_is_told_by_its_key(name, overrides, told):
    config = load_config(name, overrides)
    with pytest.raises(ConfigError, match=f"^{told}"):
        build_objective(config, build_source(config))


def test_more_atoms_than_can_be_permuted_are_told_of_the_other_network():
    seven = [f"data.positions={[[k / 7] for k in range(7)]}", "data.std=0.01"]
    config = load_config("atoms/no_regularizer", seven)
    with pytest.raises(ConfigError, match=r"^field\.network: .*take an EquivariantMLP"):
        build_field(config, build_source(config))
    config = load_config("atoms/equivariant", seven)
    assert build_field(config, build_source(config)).domain.shape == (7, 1)
    many = [f"data.positions={[[k / 20] for k in range(20)]}"]
    with pytest.raises(ConfigError, match=r"^data: 20 atoms have too many orders"):
        build_source(load_config("atoms/equivariant", many))


# ------------------------------------------------------------------------------------- validation


def test_the_validation_loss_is_the_same_for_all_and_lowest_for_the_truth():
    law = PseudoAtoms([[0.25], [0.75]], 0.01, sde=VE(0.001, 0.5))
    benchmark = Benchmark(TargetSource(law, "atoms"), Protocol(samples=2000, draws=16))

    exact, other = (validate(f, benchmark) for f in (law, Drifting(law, 0.3)))
    # In units of the noise a constant error of 0.3 adds its square, at every level alike.
    gap = other.value - exact.value
    assert abs(gap - 0.09) < 6 * math.hypot(exact.standard_error, other.standard_error)
    assert validate(law, benchmark) == exact
    # Levels uniform in their logarithm, whatever the process calls its times.
    same = law.under(EDM(0.001, 0.5))
    level = validate(same, replace(benchmark, source=TargetSource(same, "atoms")))
    assert abs(level.value - exact.value) < 6 * exact.standard_error
