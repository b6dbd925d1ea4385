"""A network that diffusers has trained by its own code, under every command that takes a model."""

import json

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.cli.program import main
from scorefield.data.arrays import digits
from scorefield.interop.diffusers import load

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The folder of a pipeline, trained on the digits for 500 steps."""
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = diffusers.DDPMScheduler()
    images = digits().reference(1400, 0, "train")
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(500):
        x = images[torch.randint(len(images), (32,))]
        noise, steps = torch.randn_like(x), torch.randint(1000, (32,))
        predicted = net(scheduler.add_noise(x, noise, steps), steps).sample
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(predicted, noise).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("diffusers") / "digits"
    diffusers.DDPMPipeline(unet=net, scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def command(pipeline, tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own, and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 0
        return capsys.readouterr().out

    return run


def test_predicted_noise_is_that_of_the_pipeline(pipeline):
    made = diffusers.DDPMPipeline.from_pretrained(pipeline)
    field, net, betas = load(pipeline), made.unet.eval(), made.scheduler.betas.double()
    x = digits().reference(4, 0, "test")
    for step in torch.linspace(0, 999, 20).long().tolist():
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        noisy = made.scheduler.add_noise(x, noise, torch.tensor([step]))
        with torch.no_grad():
            expected = net(noisy, step).sample
        found = field.predict_noise(noisy.double(), step / 999).detach()
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-6)
    alpha = field.sde.alpha(torch.linspace(0, 1, 1000, dtype=torch.float64))
    torch.testing.assert_close(alpha**2, (1 - betas).cumprod(0), rtol=1e-9, atol=1e-12)


def test_samples_of_ddim_are_those_of_the_pipeline_whose_scheduler_clips(pipeline):
    made = diffusers.DDIMPipeline.from_pretrained(pipeline)
    assert made.scheduler.config.clip_sample
    images = made(
        batch_size=4,
        num_inference_steps=10,
        use_clipped_model_output=True,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    field, sampler = sf.ClippedField(load(pipeline)), sf.DDIM(10)
    made.scheduler.set_timesteps(10)
    times = [step / 999 for step in made.scheduler.timesteps.tolist()]
    with torch.no_grad():
        for t, s in zip(times, [*times[1:], None], strict=True):
            x = sampler.step(field, x, t, s).x
    found = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, images, rtol=0, atol=1e-4)


def test_it_is_described(pipeline, command):
    printed = command("inspect", pipeline)
    assert "the scheduler clips the denoised state to ±1" in printed
    assert "receives the index of one of 1000 steps, predicts epsilon" in printed
    assert "DiscreteVP with a table of 1000 betas" in printed


def test_it_is_sampled(pipeline, command):
    *_, file, picture = command("sample", pipeline, "--n", 16, "--nfe", 20).splitlines()
    with np.load(file) as content:
        samples, record = content["samples"], json.loads(str(content["record"]))
    assert samples.shape == (16, 1, 8, 8)
    assert np.isfinite(samples).all()
    assert record["pipeline"] == str(pipeline)
    assert record["clipping"].startswith("the scheduler clips")
    assert picture.endswith(".png")


def test_its_log_densities_are_computed(pipeline, command):
    options = ["--rtol", "0.1", "--atol", "0.1", "--n", 2]
    printed = command("likelihood", pipeline, "--data", "digits/m0", *options)
    (line,) = [line for line in printed.splitlines() if line.startswith(" bits/dim")]
    # A uniform density on 17 levels has log2(17) = 4.1.
    assert 0 < float(line.split()[1]) < 4.0


def test_its_jacobian_is_analysed(pipeline, command, tmp_path):
    options = ["--dataset", "digits", "--steps", 2, "--out", tmp_path / "out"]
    printed = command("analyze", "exterior", "--unet", pipeline, *options)
    assert "U-Net" in printed
    assert (tmp_path / "out").is_dir()


def test_its_claim_fits_in_a_check(pipeline, command, tmp_path):
    printed = command("check", pipeline, "--data", "digits/m0", "--budget", "5s", "--out", "out")
    record = json.loads((tmp_path / "out" / "check.json").read_text())
    claims = dict(map(tuple, record["claims"]))
    assert claims["convention"].startswith("DDPMScheduler: receives the index of one of 1000")
    # No other reading of the network is better.
    (fit,) = [v for v in record["verdicts"] if v["about"] == "fit"]
    assert fit["words"].startswith("The claim fits: none of ")
    assert fit["words"] in printed
