"""A network that is written for diffusers has the same output there."""

import json

import pytest
import torch

import scorefield as sf
from scorefield.interop.errors import InteropError
from scorefield.interop.pipeline import save_pipeline

TINY = {"shape": (1, 8, 8), "channels": 32, "multipliers": (1, 2), "blocks": 2, "attention": (4,)}


def field(sde=None, kind=sf.NoisePrediction, label=49, **settings):
    network = sf.DDPM(**TINY | settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
    sde = sf.DiscreteVP(betas="cosine", levels=50) if sde is None else sde
    return sf.PreconditionedField(network, sde, parametrization=kind(sf.TimeLabel(label))).eval()


@pytest.mark.parametrize("kind", [sf.NoisePrediction, sf.VPrediction, sf.DenoiserPrediction])
def test_the_pipeline_has_the_same_output(kind, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    own = field(kind=kind, centered=kind is not sf.VPrediction, blocks=1)
    save_pipeline(own, tmp_path / "p")
    net = diffusers.DDPMPipeline.from_pretrained(tmp_path / "p").unet.eval()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in (0, 7, 49):
        with torch.no_grad():
            found = net(x, step).sample
            expected = own.backbone(x, torch.full((3,), float(step)))
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    again = sf.load(tmp_path / "p")
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    with torch.no_grad():
        error = again.denoise(x.double(), t) - own.denoise(x.double(), t)
    assert error.abs().max() < 1e-4
    with pytest.raises(InteropError, match="has a pipeline already"):
        save_pipeline(own, tmp_path / "p")
    assert not json.loads((tmp_path / "p/scheduler/scheduler_config.json").read_text())[
        "clip_sample"
    ]


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: field(classes=3), "classes=3, not None"),
        (lambda: field(activation="elu"), "activation='elu', not 'swish'"),
        (lambda: field(sde=sf.VP()), "its process is not DiscreteVP"),
        (lambda: field(label=50), r"its label is TimeLabel\(scale=50\), not the index"),
        (lambda: field(kind=sf.ScorePrediction), "predicts by ScorePrediction"),
        (lambda: sf.ClippedField(field()), "not DDPM"),
        (
            lambda: sf.PreconditionedField(sf.UNet((1, 8, 8), 8), sf.DiscreteVP(), 0.5),
            "not DDPM, the only one",
        ),
    ],
)
def test_every_other_field_is_refused(made, match, tmp_path):
    with pytest.raises(InteropError, match=match):
        save_pipeline(made(), tmp_path / "p")
    assert not list(tmp_path.iterdir())
