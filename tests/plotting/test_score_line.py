"""The picture of a training on atoms: what is drawn, and that drawing it changes nothing."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from scorefield import EDM, VE, PseudoAtoms
from scorefield.config.resolve import load_config
from scorefield.plotting import draw_score_line, score_line, training_figures
from scorefield.runs.run import Run
from scorefield.training import checkpoint
from tests.planted import Drifting

TRUTH = PseudoAtoms([[0.25], [0.75]], 0.01, sde=VE(0.001, 0.5))
TAG = "score along the line through the configurations"
SMALL = """\
extends: atoms/no_regularizer
description: a small run
field: {network: {hidden: 4, depth: 1, embedding: 4}}
train: {steps: 4, batch_size: 8, checkpoint_every: 2, log_every: 2}
"""


# Off by a constant in units of the noise, the opposite for the second atom.
SHIFTED = Drifting(TRUTH, [[3.0], [-3.0]])


def drawing_of(source):
    return training_figures(source.truth)


def test_the_line_goes_through_both_wells():
    line = score_line(TRUTH, TRUTH, points=9)
    assert line.ends[:, :, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    for well in line.wells:
        x = line.ends[0] + well * (line.ends[1] - line.ends[0])
        assert sorted(x.flatten().tolist()) == [0.25, 0.75]
        # In a well, and by symmetry half-way between the wells, the score is zero.
        at = int(torch.argmin((line.place - well).abs()))
        assert line.truth[:, at].abs().amax() < 1e-9
    assert line.truth[:, 4].abs().amax() < 1e-6


def test_levels_are_those_of_the_process():
    assert score_line(TRUTH, TRUTH, 3).sigmas == pytest.approx(
        [0.001 * 500 ** (k / 7) for k in range(8)]
    )
    wide = score_line(TRUTH, TRUTH, 3).widths
    assert wide[0] == pytest.approx(math.hypot(0.01, 0.001) / math.sqrt(2))
    law = TRUTH.under(EDM(0.01, 2.0))
    sigmas = score_line(law, law, 3).sigmas
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(0.01), pytest.approx(2.0))


def test_values_are_the_component_along_the_line_in_units_of_the_noise():
    line = score_line(SHIFTED, TRUTH, points=5)
    torch.testing.assert_close(
        line.field - line.truth, torch.full((8, 5), 3 * math.sqrt(2)).double()
    )
    # Near a well, and at little noise: sigma (m - x) / (sigma² + std²), along the diagonal.
    near = score_line(TRUTH, TRUTH, points=1001)
    place, sigma = float(near.place[255]), near.sigmas[2]
    wanted = -math.sqrt(2) * (place - 0.25) * sigma / (sigma**2 + 0.01**2)
    assert float(near.truth[2, 255]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    "positions", [[[0.1]], [[0.3, 0.2]], [[0.1, 0.2], [0.6, 0.9], [0.4, 0.4]], [[0.1], [0.1]]]
)
def test_any_number_of_atoms_and_dimensions(positions):
    law = PseudoAtoms(positions, 0.02, sde=VE(0.001, 0.6))
    line = score_line(law, law, points=5)
    assert line.field.shape == (8, 5)
    assert torch.equal(line.field, line.truth)
    assert bool(line.field.isfinite().all())


def test_a_panel_for_each_level():
    sheet = draw_score_line(score_line(SHIFTED, TRUTH, points=11))
    assert isinstance(sheet, Figure)
    titles = [panel.get_title() for panel in sheet.axes]
    assert (len(titles), titles[0], titles[-1]) == (8, "σ = 0.001", "σ = 0.5")
    exact, model = sheet.axes[3].lines[-2:]
    assert (model.get_ydata() - exact.get_ydata()).tolist() == pytest.approx(
        [3 * math.sqrt(2)] * 11
    )
    assert sheet.get_supxlabel().startswith("from (0, 1) to (1, 0); shaded: within two standard")
    assert list(training_figures(TRUTH)(TRUTH)) == [TAG]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    file = tmp_path_factory.mktemp("configurations") / "small.yaml"
    file.write_text(SMALL)
    return file


def test_a_training_draws_at_every_checkpoint_and_is_no_other_for_it(small, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def weights(run):
        return checkpoint.read(run.checkpoints / "step_00000004").ema.tensors

    def images(run):
        events = EventAccumulator(str(run.folder / "tb"))
        events.Reload()
        assert events.Tags()["images"] == [TAG]
        return [event.step for event in events.Images(TAG)]

    run = Run.create(load_config(small), tmp_path / "drawn")
    run.train(quiet=True, draw=drawing_of)
    assert images(run) == [2, 4]

    halved = Run.create(load_config(small), tmp_path / "halved")
    monkeypatch.setattr("scorefield.training.trainer.StopSignal", Stopped)
    with pytest.raises(Exception, match="interrupted"):
        halved.train(quiet=True, draw=drawing_of)
    monkeypatch.undo()
    assert halved.steps() == [1]
    halved.train(quiet=True, draw=drawing_of)
    assert images(halved) == [1, 2, 4]

    plain = Run.create(load_config(small), tmp_path / "plain")
    plain.train(quiet=True)
    for name, tensor in weights(run).items():
        assert torch.equal(weights(plain)[name], tensor)
        assert torch.equal(weights(halved)[name], tensor)


class Stopped:
    """A signal that has arrived already."""

    received = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
