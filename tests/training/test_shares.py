"""Steps of several processes, as threads of one: they see and do what one process does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from scorefield import EDM, MLP, ArraySource, PreconditionedField
from scorefield.config.build import build_training
from scorefield.config.resolve import load_config
from scorefield.dropout import Dropout
from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.objectives.denoising import DenoisingScoreMatching
from scorefield.objectives.objective import Objective
from scorefield.runs.run import Run
from scorefield.training.draws import training_draws
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.step import Stepper
from scorefield.world import ALONE
from tests.worlds import together

torch.set_num_threads(1)
SMALL = ["train.batch_size=22", "optim.warmup=1"]
ATOMS = ["field.network.hidden=8", *SMALL]
TOY = ["field.network.hidden=16", "field.network.depth=2", "field.network.embedding=4", *SMALL]
TOY_HYBRID = [
    *["field.network.hidden=16", "field.low_network.hidden=16", "field.network.depth=2"],
    *["field.low_network.depth=2", *SMALL],
]
PRESETS = {
    "toy/m0": TOY,
    "toy/m1": TOY,
    "toy/m2": TOY,
    "toy/m2_dual": TOY,
    "toy/m3": TOY,
    "toy/m4": TOY_HYBRID,
    "atoms/analytical_regression": ATOMS,
    "atoms/fokker_planck": ATOMS,
    "atoms/consistency": ATOMS,
    "atoms/consistency_with_analytical_guide": ATOMS,
    "digits/m0": SMALL,
}
SLOW = {
    **{f"digits/m{k}": SMALL for k in (1, 2, 3, 4)},
    "digits/ncsnpp_ve": ["field.network.dropout=0.1", *SMALL],
    "digits/ncsnpp_classes": ["field.network.dropout=0.1", *SMALL],
}


def stepper(preset, overrides, world=ALONE, **settings):
    run = Run(None, load_config(preset, overrides))
    optim, chosen = build_training(run.config)
    field = run.untrained().double()
    # Networks begin at nearly zero.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in field.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return Stepper(
        field,
        run.source(),
        run.objective(),
        optim,
        replace(chosen, **settings),
        Noise(0),
        Engine("cpu", world=world),
    )


def steps(preset, overrides, world=ALONE, count=2, **settings):
    """The terms and gradients of steps, and the weights after them."""
    made, found = stepper(preset, overrides, world, **settings), []
    for step in range(count):
        scalars = made.take(step)
        found.append(({k: float(v) for k, v in scalars.items()}, made.descent.gradient.clone()))
    return found, torch.cat([p.detach().flatten() for p in made.field.parameters()])


def agree(preset, overrides, sizes=(2, 3), **settings):
    expected, weights = steps(preset, overrides, **settings)
    for size in sizes:
        outcomes = together(size, lambda world: steps(preset, overrides, world, **settings))
        for found, own in outcomes:
            # All processes have one and the same weights.
            assert torch.equal(own, outcomes[0][1])
            torch.testing.assert_close(own, weights, rtol=1e-8, atol=1e-10)
            for (terms, gradient), (one, whole) in zip(found, expected, strict=True):
                assert terms == pytest.approx(one, rel=1e-9)
                assert (gradient - whole).norm() <= 1e-9 * whole.norm()


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_and_gradients_are_those_of_one_process(preset):
    agree(preset, PRESETS[preset])


@pytest.mark.slow
@pytest.mark.parametrize("preset", SLOW)
def test_losses_and_gradients_of_images_are_those_of_one_process(preset):
    agree(preset, SLOW[preset])


def test_parts_of_a_share_are_those_of_the_batch():
    agree("toy/m3", TOY, accumulate=4)


def test_noise_is_assigned_to_the_points_of_all_processes():
    agree("toy/m0", [*TOY, "objective.weighting=velocity", "objective.pairing=transport"])


def test_points_times_noise_and_keys_are_exactly_those_of_one_process():
    run = Run(None, load_config("digits/ncsnpp_classes", ["field.network.dropout=0.1", *SMALL]))
    field, source, objective = run.untrained(), run.source(), run.objective()

    def drawn(world):
        draws = training_draws(field, source, objective, Noise(3), 22, world=world)
        return [draws(step) for step in (0, 5, 70)]

    whole = drawn(ALONE)
    assert len(whole[0]) == 5
    for size in (2, 3, 22):
        shares = together(size, drawn)
        for step, expected in enumerate(whole):
            for k, tensor in enumerate(expected):
                assert torch.equal(torch.cat([share[step][k] for share in shares]), tensor)


class Partial(nn.Module):
    """A network of which a row uses one of two layers, and one layer is never used."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.unused, self.inner = nn.Linear(3, 3), MLP(2, hidden=8, depth=1, embedding=4)
        self.rare = nn.Linear(2, 2)

    def forward(self, x, label):
        far = (x[:, :1] > 0.3).nonzero()[:, 0]
        h = self.inner(x, label)
        return h if not len(far) else h.index_add(0, far, self.rare(x[far]))


@pytest.mark.parametrize("piece", [1, 100, 10**9])
def test_parameters_without_a_gradient_stop_nothing(monkeypatch, piece):
    monkeypatch.setattr("scorefield.training.reduction._PIECE", piece)
    torch.manual_seed(0)
    state, x = Partial().double().state_dict(), torch.randn(64, 2)

    def work(world):
        network = Partial().double()
        network.load_state_dict(state)
        field = PreconditionedField(network, EDM(), sigma_data=1.0)
        objective = Objective(DenoisingScoreMatching(sigma_data=1.0))
        made = Stepper(
            field, ArraySource(x, x[:2], "x"), objective, Optim(), TrainSettings(9, 5), Noise(0),
            Engine("cpu", world=world),
        )  # fmt: skip
        for step in range(4):
            made.take(step)
        return made.descent.gradient.clone()

    whole = work(ALONE)
    assert whole.abs().max() > 0
    for found in together(5, work):
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)


def test_all_processes_skip_the_step_that_is_not_finite_in_one_and_say_where():
    class Poisoned(MLP):
        def forward(self, x, label):
            h = super().forward(x, label)
            return (
                torch.where(label[:, None] == label[:, None].max(), torch.nan, h) if self.bad else h
            )

    x = torch.randn(64, 2)

    def work(world):
        network = Poisoned(2, hidden=8, depth=1, embedding=4)
        network.bad = world.rank == 1
        field = PreconditionedField(network, EDM(), sigma_data=1.0)
        objective = Objective(DenoisingScoreMatching(sigma_data=1.0))
        made = Stepper(
            field, ArraySource(x, x[:2], "x"), objective, Optim(),
            TrainSettings(9, 6, max_skipped=1), Noise(0), Engine("cpu", world=world),
        )  # fmt: skip
        before = [p.clone() for p in field.parameters()]
        assert not made.take(0)["taken"]
        assert all(torch.equal(a, b) for a, b in zip(before, field.parameters(), strict=True))
        first = made.stopped(1)
        return first, made.fault(1)

    outcomes = together(2, work)
    assert outcomes[0] == outcomes[1]
    assert "at noise level" in outcomes[0][1]


@pytest.mark.parametrize(("layer", "said"), [
    (nn.Dropout(0.1), "backbone.1 is torch's Dropout"),
    (nn.BatchNorm1d(2), "backbone.1 is torch's BatchNorm1d"),
    (nn.InstanceNorm1d(2, track_running_stats=True), "backbone.1 is torch's InstanceNorm1d"),
])  # fmt: skip
def test_layers_that_see_the_batch_are_refused(layer, said):
    class Behind(nn.Sequential):
        event_shape = (2,)

        def forward(self, x, label):
            return self[1](self[0](x, label))

    x = torch.randn(64, 2)

    def work(world):
        field = PreconditionedField(Behind(MLP(2, hidden=8, depth=1), layer), EDM(), sigma_data=1.0)
        objective = Objective(DenoisingScoreMatching(sigma_data=1.0))
        Stepper(
            field, ArraySource(x, x[:2], "x"), objective, Optim(), TrainSettings(9, 6), Noise(0),
            Engine("cpu", world=world),
        )  # fmt: skip

    with pytest.raises(UserError, match=said):
        together(2, work)
    work(ALONE)
    layer = Dropout(0.1)
    together(2, work)


def test_more_processes_than_points_are_refused():
    with pytest.raises(UserError, match="batch_size=1 points cannot be shared out to 2 processes"):
        together(2, lambda world: stepper("toy/m0", TOY[:-2], world, batch_size=1))
