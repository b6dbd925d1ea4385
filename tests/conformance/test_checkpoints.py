"""Published layouts of checkpoints against recorded weights and outputs."""

import pytest
import torch

from scorefield import VE, SigmaLabel
from scorefield.interop.score_sde.checkpoints import FREQUENCIES, read_checkpoint
from scorefield.interop.score_sde.load import load
from tests.conformance import reference

torch.set_num_threads(1)

NAME = "checkpoint_expected"


@pytest.fixture
def path():
    return reference.ROOT / "score_sde" / "checkpoint_reference_layout.pth"


@pytest.fixture
def rewritten(path, tmp_path):
    """The same weights as the rewrite saves them: averages of all parameters, no step, and a
    learning rate that is a tensor.
    """
    content = torch.load(path, weights_only=False)
    ema = content["ema"]
    frequencies = content["model"][f"module.{FREQUENCIES}"]
    ema["shadow_params"] = [frequencies.clone(), *ema["shadow_params"]]
    ema["collected_params"] = None
    content["optimizer"]["param_groups"][0]["lr"] = torch.tensor(2e-4)
    content["model"]["module.sigmas"] = content["model"]["module.sigmas"].float()
    file = tmp_path / "epoch_7.pth"
    torch.save({k: content[k] for k in ("model", "ema", "optimizer")}, file)
    return file


def test_the_layout_of_the_original_is_understood(path):
    meta, found = reference.meta(NAME), read_checkpoint(path)
    assert found.layout == "score_sde_pytorch"
    assert found.step == meta["step"]
    first = [f"module.{name}" for name in found.state][: len(meta["model_keys"])]
    assert first == meta["model_keys"]
    assert len(found.state) == meta["n_model_keys"]
    assert found.optimizer.moments == meta["n_shadow"]
    assert isinstance(found.optimizer.lr, float)
    assert (found.decay, found.updates) == (0.999, 2)


def test_averages_belong_to_their_parameters(path, rewritten):
    arrays = reference.load(NAME)
    for file in (path, rewritten):
        averaged = read_checkpoint(file).averaged
        recorded = {k.removeprefix("ema_sd/").removeprefix("module."): v for k, v in arrays.items()}
        for name, tensor in averaged.items():
            if name != "sigmas":
                assert torch.equal(tensor, reference.tensor(recorded[name])), name


def test_the_layout_of_the_rewrite_is_understood(rewritten):
    found = read_checkpoint(rewritten)
    assert found.layout == "rewrite"
    assert found.step is None
    assert found.optimizer.lr == pytest.approx(2e-4)


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("layout", ["path", "rewritten"])
def test_a_loaded_field_gives_the_recorded_outputs(layout, weights, request):
    file = request.getfixturevalue(layout)
    arrays, config = reference.load(NAME), reference.meta(NAME)["config"]
    field = load(file, config, weights)
    x, labels = reference.tensor(arrays["x"]), reference.tensor(arrays["labels"])
    expected = reference.tensor(arrays[f"y_{weights}"])
    with torch.no_grad():
        y = field.backbone(x, labels)
    assert (y - expected).abs().amax() <= 1e-4 * expected.abs().amax()


def test_a_loaded_field_is_the_score_at_the_level_of_the_label(path):
    arrays, config = reference.load(NAME), reference.meta(NAME)["config"]
    field = load(path, config)
    assert isinstance(field.sde, VE)
    assert field.parametrization.label == SigmaLabel()
    assert not field.training
    x, sigma = reference.tensor(arrays["x"]), reference.tensor(arrays["labels"])
    expected = reference.tensor(arrays["y_ema"])
    with torch.no_grad():
        score = field.score(x, field.sde.time(sigma))
    assert (score - expected).abs().amax() <= 1e-3 * expected.abs().amax()


def test_what_the_weights_show_need_not_be_said(path):
    config = reference.meta(NAME)["config"]
    said = {
        "data": {"image_size": 16, "centered": False},
        "training": {"sde": "vesde", "continuous": True},
        "model": {
            key: config["model"][key]
            for key in ("nonlinearity", "scale_by_sigma", "skip_rescale", "fir_kernel")
        },
    }
    a, b = load(path, config).state_dict(), load(path, said).state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
