"""Steps that are skipped, batches in parts, averages and warm-ups in images."""

import math

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    MLP,
    Asymmetry,
    BalancedWeight,
    CycleCirculation,
    DenoisingScoreMatching,
    GaussianMixture,
    Objective,
    Optim,
    PreconditionedField,
    TargetSource,
    fit,
)
from scorefield.engine import Engine
from scorefield.errors import TrainingError
from scorefield.noise import Noise
from scorefield.training import checkpoint
from scorefield.training.ema import EMA, HalfLife
from scorefield.training.lengths import PowerAverage, reconstruct
from scorefield.training.settings import TrainSettings
from scorefield.training.step import Stepper

torch.set_num_threads(1)
TRUTH = GaussianMixture.ring()
SMALL = {"batch_size": 16, "log_every": 5, "checkpoint_every": 10, "quiet": True}


def small_field(network=None):
    network = network or MLP(2, hidden=8, depth=2, embedding=4)
    return PreconditionedField(network, EDM(), sigma_data=TRUTH.std)


class Poisoned(MLP):
    """A network whose second layer is not finite at some steps, in one row."""

    def __init__(self, bad, gradient=False):
        super().__init__(2, hidden=8, depth=2, embedding=4)
        self.bad, self.gradient, self.calls = set(bad), gradient, 0
        self.layers[1].register_forward_hook(self.spoil)

    def spoil(self, layer, inputs, output):
        if not self.training:
            return output
        self.calls += 1
        if self.calls not in self.bad:
            return output
        spoilt = torch.zeros_like(output)
        # Of an infinite slope, or of no finite value.
        spoilt[3] = output[3].detach().mul(0) if self.gradient else math.nan
        if self.gradient:
            return output + (output - output.detach()).abs().sqrt() * (spoilt == spoilt).float()
        return output + spoilt


def trained(field, steps=12, regularizers=(), **settings):
    objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std), regularizers)
    settings = SMALL | {"optim": Optim()} | settings
    return fit(field, TRUTH, objective=objective, steps=steps, **settings)


def everything(folder, step):
    kept = checkpoint.read(folder / "checkpoints" / f"step_{step:08d}")
    moments = [s[k] for s in kept.state["optimizer"]["state"].values() for k in sorted(s)]
    stored = (kept.model.tensors, kept.ema.tensors)
    return [*(tensors[name] for tensors in stored for name in sorted(tensors)), *moments]


def test_a_skipped_step_leaves_weights_averages_moments_and_controllers():
    def cycles():
        weight = BalancedWeight(1e-6, 1.0, 10.0)
        return [CycleCirculation(weight=weight, points=16, cycles=8)]

    network = Poisoned({7})
    source = TargetSource(TRUTH)
    objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std), cycles())
    field = small_field(network)
    settings = TrainSettings(20, 16)
    stepper = Stepper(
        field, source, objective, Optim(), settings, Noise(0), Engine("cpu"), snapshots=True
    )
    for step in range(6):
        assert bool(stepper.take(step)["taken"])

    def state():
        found = [
            *field.parameters(),
            *objective.buffers(),
            stepper.ema.state_dict()["backbone.last.bias"],
        ]
        found += [m for s in stepper.descent.optimizer.state.values() for m in s.values()]
        found += [t for a in stepper.averages.values() for t in a.state_dict().values()]
        return [tensor.detach().clone() for tensor in found]

    before = state()
    network.bad = set(range(100))
    scalars = stepper.take(6)
    assert not bool(scalars["taken"])
    assert math.isnan(scalars["loss"])
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    network.bad = set()
    assert bool(stepper.take(7)["taken"])
    assert not any(
        torch.equal(a, b) for a, b in zip(before[:2], list(field.parameters())[:2], strict=True)
    )


def test_a_few_skipped_steps_are_counted_and_forgiven(tmp_path):
    result = trained(small_field(Poisoned({2, 8, 9})), folder=tmp_path, max_skipped=3)
    rows = result.history
    assert [row.get("skipped") for row in rows] == [1, 2, None]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert "skipped" in (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert all(p.isfinite().all() for p in result.field.parameters())


def test_a_training_without_skipped_steps_has_no_such_column(tmp_path):
    trained(small_field(), folder=tmp_path)
    assert "skipped" not in (tmp_path / "metrics.csv").read_text()


def test_a_row_of_skipped_steps_has_no_loss(tmp_path):
    result = trained(small_field(Poisoned(range(6, 11))), folder=tmp_path)
    assert "loss" not in result.history[1]
    assert result.history[1]["skipped"] == 5
    assert "loss" in result.history[2]


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_the_training_stops_where_it_stood_whenever_a_row_is_due(tmp_path, log_every):
    # From the seventh step on; where nobody looks, good again after three: too late.
    good = set() if log_every == 1 else {10, 11}
    field = small_field(Poisoned(set(range(7, 1000)) - good))
    settings = {"max_skipped": 3, "log_every": log_every, "folder": tmp_path, "steps": 15}
    with pytest.raises(TrainingError) as error:
        trained(field, **settings)
    said = str(error.value)
    assert "at step 7 in the output of backbone.layers.1 at noise level" in said
    assert "and the 2 steps after it are not finite either; there is no checkpoint yet" in said
    assert "\n" not in said
    assert all(p.isfinite().all() for p in field.parameters())


def test_a_loss_scale_that_has_fallen_is_named():
    field, engine = small_field(Poisoned(range(7, 1000))), Engine("cpu", "float16")
    with pytest.raises(TrainingError, match=r"is nan at step 7 with a loss scale of 8192 in the"):
        trained(field, max_skipped=3, engine=engine)


def test_names_the_layer_and_the_noise_level():
    network = Poisoned(range(1000))
    field, source = small_field(network), TargetSource(TRUTH)
    objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std))
    stepper = Stepper(
        field, source, objective, Optim(), TrainSettings(9, 16), Noise(0), Engine("cpu")
    )
    field.train()
    # The row that is spoilt is the fourth.
    t, _ = objective.draw(field, Noise(0), torch.arange(16), 0)
    level = float(field.sde.noise_level(t[3]))
    told = stepper.fault(1)
    assert told == (
        f"the loss 'denoising' is nan at step 1 in the output of backbone.layers.1 at noise level "
        f"{level:.4g}"
    )
    network.gradient = True
    told = stepper.fault(1)
    assert "norm of the gradient is nan at step 1 in the gradient of the output of backbone" in told


def test_names_the_regulariser_whose_gradient_is_not_finite():
    class Root(Asymmetry):
        name = "root"

        def energy(self, field, x, t, *directions):
            weight = field.backbone.last.weight
            return (weight - weight.detach()).abs().sum().sqrt()

    with pytest.raises(TrainingError) as error:
        trained(small_field(), regularizers=[Root(weight=1.0)], max_skipped=1)
    assert (
        "norm of the gradient is nan at step 1 in the gradient of backbone.last.weight from the "
        "regulariser 'root'; " in str(error.value)
    )


def test_regularisers_are_exact_and_repeat_themselves_in_a_step_and_in_the_search_for_a_fault():
    contexts = []

    class Noting(Asymmetry):
        name = "noting"

        def energy(self, field, x, t, *directions):
            half = torch.is_autocast_enabled("cpu")
            contexts.append((half, torch.are_deterministic_algorithms_enabled()))
            return super().energy(field, x, t, *directions)

    field, source = small_field(), TargetSource(TRUTH)
    objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std), [Noting(weight=1.0)])
    engine = Engine("cpu", "bfloat16", deterministic=True)
    settings = TrainSettings(9, 16)
    stepper = Stepper(field.train(), source, objective, Optim(), settings, Noise(0), engine)
    stepper.take(0)
    assert contexts == [(False, True)]
    stepper.fault(2)
    assert contexts == 3 * [(False, True)]


def test_a_fault_is_found_in_the_parts_of_a_batch():
    """Where the batch is divided for its memory, there is none for the whole."""
    rows = []
    network = Poisoned({3, 7})
    network.register_forward_hook(lambda module, given, output: rows.append(len(given[0])))
    field, source = small_field(network).train(), TargetSource(TRUTH)
    objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std))
    settings = TrainSettings(9, 16, accumulate=4)
    stepper = Stepper(field, source, objective, Optim(), settings, Noise(0), Engine("cpu"))
    told = stepper.fault(1)
    t, _ = objective.draw(field, Noise(0), torch.arange(16), 0)
    # The fourth row of the third part.
    level = float(field.sde.noise_level(t[11]))
    assert told.endswith(f"output of backbone.layers.1 at noise level {level:.4g}")
    assert set(rows) == {4}


def test_resumes_in_the_middle_of_skipped_steps(tmp_path):
    bad = {8, 9, 10, 11, 12}
    trained(small_field(Poisoned(bad)), folder=tmp_path / "at once", steps=15, max_skipped=6)
    first = small_field(Poisoned(bad))
    trained(first, folder=tmp_path / "twice", steps=10, max_skipped=6)
    later = Poisoned(bad)
    later.calls = 10
    trained(small_field(later), folder=tmp_path / "twice", steps=15, max_skipped=6)
    pairs = zip(
        everything(tmp_path / "at once", 15), everything(tmp_path / "twice", 15), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    # Three before the checkpoint count too.
    trained(small_field(Poisoned(bad)), folder=tmp_path / "too many", steps=10, max_skipped=4)
    later = Poisoned(bad)
    later.calls = 10
    with pytest.raises(TrainingError, match="at step 8, and the 3 steps after it"):
        trained(small_field(later), folder=tmp_path / "too many", steps=15, max_skipped=4)


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_the_gradient_of_parts_is_that_of_the_batch(parts):
    def gradient(accumulate):
        field = small_field().double()
        cycles = CycleCirculation(weight=BalancedWeight(0.5, 1.0), points=16, cycles=8, reach=1e3)
        regularizers = [cycles, Asymmetry(weight=0.1)]
        objective = Objective(DenoisingScoreMatching(sigma_data=TRUTH.std), regularizers)
        settings = TrainSettings(3, 16, accumulate=accumulate)
        source = TargetSource(TRUTH)
        stepper = Stepper(field, source, objective, Optim(), settings, Noise(0), Engine("cpu"))
        terms = stepper._losses(stepper._batch(1), 1)
        return terms, stepper.descent.gradient

    (whole, expected), (terms, found) = gradient(1), gradient(parts)
    assert "cycles" in whole
    assert terms.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_half_life_is_that_of_the_published_code():
    batch, halflife = 512, 500_000
    average = HalfLife(nn.Linear(1, 1), halflife, batch)
    seen = 0
    for n in range(1, 2000):
        # As in the training loop of EDM, with ema_rampup_ratio 0.05.
        images = min(halflife, seen * 0.05)
        assert average.decay_at(n) == pytest.approx(0.5 ** (batch / max(images, 1e-8)), rel=1e-12)
        seen += batch
    # Far from the start, half of the weight is that of the last images of the half-life.
    n = halflife // batch * 100
    decay = average.decay_at(n)
    assert decay ** (halflife / batch) == pytest.approx(0.5, rel=1e-9)


def test_a_training_has_the_average_it_asks_for():
    field = small_field()
    found = TrainSettings(ema_decay=None, ema_halflife=1000.0).average(field)
    assert isinstance(found, HalfLife)
    assert (found.images, found.batch_size) == (1000.0, 512)
    assert isinstance(TrainSettings().average(field), EMA)


@pytest.mark.parametrize("given", [{"ema_halflife": 5.0}, {"ema_decay": None}])
def test_a_decay_and_a_half_life_are_alternatives(given):
    with pytest.raises(ValueError, match=r"either a decay or a half-life, got .*: give one"):
        TrainSettings(**given)


def test_a_warm_up_in_images_takes_the_steps_that_see_them():
    optim, settings = Optim(warmup_images=100), TrainSettings(steps=20, batch_size=16)
    in_steps = Optim(warmup=7)
    rates = [optim.multiplier(k, settings) for k in range(20)]
    assert rates == [in_steps.multiplier(k, settings) for k in range(20)]
    assert rates[5] < 1 == rates[6]
    with pytest.raises(ValueError, match="warmup=7 steps and warmup_images=100 are two warm-ups"):
        Optim(warmup=7, warmup_images=100)


def test_more_parts_than_points_are_refused():
    with pytest.raises(ValueError, match=r"accumulate=17 parts .* batch_size is 16"):
        TrainSettings(batch_size=16, accumulate=17)


def test_averages_are_stored_while_training_and_found_for_any_length(tmp_path, monkeypatch):
    direct = []
    take_in = EMA.take_in

    def both(average, taken):
        if not direct:
            direct.append(PowerAverage(average._module, 0.08))
        direct[0].begin()
        direct[0].take_in(taken)
        take_in(average, taken)

    monkeypatch.setattr(EMA, "take_in", both)
    field, optim = small_field(), Optim(lr=1e-2)
    trained(field, folder=tmp_path, steps=200, snapshot_every=25, checkpoint_every=200, optim=optim)
    names = [name for name, _ in field.named_parameters()]
    found, about = reconstruct(tmp_path / "averages", 200, 0.08, names)
    raw = checkpoint.read(checkpoint.paths(tmp_path / "checkpoints")[-1]).model.tensors
    expected = direct[0].state_dict()
    assert about.error < 0.02
    for name in names:
        # Far nearer to it than the last weights are.
        away = torch.linalg.vector_norm(raw[name] - expected[name])
        assert torch.linalg.vector_norm(found[name] - expected[name]) < 0.05 * away + 1e-6


def test_stored_averages_survive_a_resume(tmp_path):
    settings = {"snapshot_every": 4, "checkpoint_every": 5}
    trained(small_field(), folder=tmp_path / "at once", steps=14, **settings)
    trained(small_field(), folder=tmp_path / "twice", steps=7, **settings)
    trained(small_field(), folder=tmp_path / "twice", steps=14, **settings)
    files = [
        f"step_{step:08d}/{name}.safetensors"
        for step in (4, 8, 12, 14)
        for name in ("0.05", "0.10")
    ]
    for file in files:
        one, other = (tmp_path / f / "averages" / file for f in ("at once", "twice"))
        assert one.read_bytes() == other.read_bytes()
    # A training that did not track them cannot begin to.
    trained(small_field(), folder=tmp_path / "without", steps=5)
    with pytest.raises(ValueError, match="averages is missing there"):
        trained(small_field(), folder=tmp_path / "without", steps=10, snapshot_every=5)
