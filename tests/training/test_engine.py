"""Trainings do not depend on the engine, but for rounding."""

import shutil

import pytest
import torch

from scorefield import Engine
from scorefield.config.resolve import load_config
from scorefield.runs.run import Run

OVERRIDES = (
    "train.steps=50", "train.log_every=1", "train.batch_size=8", "train.checkpoint_every=25",
)  # fmt: skip
NETWORKS = {
    "toy/m0": ("field.network.hidden=16", "field.network.depth=1"),
    "digits/m0": ("field.network.channels=8",),
}


def losses(preset, root, engine):
    run = Run.create(load_config(preset, (*OVERRIDES, *NETWORKS[preset])), root)
    fit = run.train(quiet=True, engine=engine)
    return torch.tensor([row["loss"] for row in fit.history], dtype=torch.float64), run


@pytest.fixture(scope="module", params=NETWORKS)
def plain(request, tmp_path_factory):
    """A preset, and the losses and the run of a plain training of it."""
    root = tmp_path_factory.mktemp("plain")
    return request.param, *losses(request.param, root, Engine("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", [{"compile": True}, {"channels_last": True}, {"deterministic": True}]
)
def test_fifty_losses_are_equal_to_rounding(plain, tmp_path, setting):
    preset, expected, run = plain
    found, other = losses(preset, tmp_path, Engine("cpu", **setting))
    assert len(found) == 50
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
    one, two = run.checkpoint().model.tensors, other.checkpoint().model.tensors
    assert {n: (t.shape, t.dtype, t.stride()) for n, t in one.items()} == {
        n: (t.shape, t.dtype, t.stride()) for n, t in two.items()
    }


@pytest.mark.slow
def test_a_run_goes_on_compiled_and_back(tmp_path):
    config = load_config("toy/m0", (*OVERRIDES, *NETWORKS["toy/m0"]))
    run = Run.create(config, tmp_path)
    expected = [row["loss"] for row in run.train(quiet=True, engine=Engine("cpu")).history]
    for engine, tolerance in ((Engine("cpu", compile=True), 1e-5), (Engine("cpu"), 1e-12)):
        shutil.rmtree(run.checkpoints / "step_00000050")
        found = [row["loss"] for row in run.train(quiet=True, engine=engine).history]
        assert len(found) == 50
        assert found == pytest.approx(expected, rel=tolerance)
