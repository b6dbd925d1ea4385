"""Models of diffusers, compared with diffusers itself."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import scorefield as sf
from scorefield.cli import main
from scorefield.errors import UserError
from scorefield.interop.diffusers import field_of, load
from scorefield.interop.errors import InteropError
from scorefield.runs.inspection import inspect
from scorefield.runs.subject import open_subject

diffusers = pytest.importorskip("diffusers")

SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": torch.linspace(1e-3, 0.04, 500).tolist()},
    "v": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "zero": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}


def network(outputs=1, **settings):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=outputs,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        **settings,
    )


def saved(folder, net=None, scheduler="DDPMScheduler", **settings):
    given = {"num_train_timesteps": len(settings.get("trained_betas", range(1000))), **settings}
    made = getattr(diffusers, scheduler)(**given)
    pipeline = diffusers.DDPMPipeline(unet=network() if net is None else net, scheduler=made)
    pipeline.save_pretrained(folder)
    return pipeline.unet.eval(), made


def points(n=3, seed=0):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_field_is_what_the_pipeline_makes_of_its_network(tmp_path, name):
    net, scheduler = saved(tmp_path, **SCHEDULES[name])
    field, x, steps = load(tmp_path), points(), len(scheduler.betas)
    form = {"v": "v", "zero": "v", "sample": "denoiser"}.get(name, "noise")
    # Those of the scheduler, which are rounded to single precision at every step.
    products = (1 - scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(products, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)
    for step in torch.linspace(0, steps - 1, 20).long().tolist():
        with torch.no_grad():
            output = net(x, step).sample
        alpha, sigma = products[step].sqrt(), (1 - products[step]).sqrt()
        noise = {
            "noise": output,
            "v": alpha * output + sigma * x,
            "denoiser": (x - alpha * output) / sigma,
        }[form]
        found = field.predict_noise(x.double(), step / (steps - 1)).detach()
        # A predicted denoiser holds the noise to its own rounding over sigma.
        limit = 1e-6 / float(sigma) if form == "denoiser" else 1e-6
        torch.testing.assert_close(found, noise.double(), rtol=0, atol=limit)


def pipeline_samples(net, scheduler, x, steps=20):
    """The loop of DDIMPipeline, without its rescaling to [0, 1]."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = net(x.float(), t).sample.double()
        x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    return x, scheduler.timesteps.tolist()


def our_samples(field, x, indices, count):
    times = [min(i / (count - 1), field.sde.t_max) for i in indices]
    with torch.no_grad():
        for t, s in zip(times, [*times[1:], None], strict=True):
            x = sf.DDIM(len(times)).step(field, x, t, s).x
    return x


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", ["linear", "cosine", "v", "zero"])
def test_samples_of_ddim_are_those_of_diffusers(tmp_path, name, spacing, clip):
    settings = {"timestep_spacing": spacing, "clip_sample": clip, **SCHEDULES[name]}
    net, scheduler = saved(tmp_path, scheduler="DDIMScheduler", **settings)
    start = points().double()
    expected, indices = pipeline_samples(net, scheduler, start)
    field = load(tmp_path)
    found = our_samples(sf.ClippedField(field) if clip else field, start, indices, 1000)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)


def test_steps_of_flow_matching_are_those_of_diffusers(tmp_path):
    made = diffusers.FlowMatchEulerDiscreteScheduler()
    net = network()
    diffusers.DDPMPipeline(unet=net, scheduler=made).save_pretrained(tmp_path)
    made.set_timesteps(sigmas=[0.99, 0.7, 0.4, 0.1])
    start = expected = points()
    for t in made.timesteps:
        with torch.no_grad():
            expected = made.step(net(expected, t).sample, t, expected).prev_sample
    field, found = load(tmp_path), start.double()
    levels = made.sigmas.double().tolist()[:-1]
    with torch.no_grad():
        for t, s in zip(levels, [*levels[1:], None], strict=True):
            found = sf.DDIM(4).step(field, found, t, s).x
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-4)


def test_the_learned_variance_is_left_out(tmp_path):
    net, _ = saved(tmp_path, network(outputs=2), variance_type="learned_range")
    x = points()
    with torch.no_grad():
        expected = net(x, 999).sample[:, :1]
    torch.testing.assert_close(load(tmp_path).predict_noise(x, 1.0).detach(), expected)


def test_classes_are_those_of_the_network(tmp_path):
    net, _ = saved(tmp_path, network(num_class_embeds=4))
    x, classes = points(), torch.tensor([0, 3, 1])
    field = load(tmp_path)
    with torch.no_grad():
        expected = net(x, 999, class_labels=classes).sample
    torch.testing.assert_close(field.predict_noise(x, 1.0, classes).detach(), expected)
    with pytest.raises(ValueError, match="needs their classes"):
        field.predict_noise(x, 1.0)


def test_a_network_without_a_size_is_refused():
    net = network()
    net.register_to_config(sample_size=None)
    with pytest.raises(InteropError, match="the network has no sample_size"):
        field_of(net.eval(), diffusers.DDPMScheduler())


def test_commands_take_the_folder(tmp_path):
    saved(tmp_path)
    subject = open_subject(tmp_path)
    assert sf.DDIM(2).sample(subject.field, 2).shape == (2, 1, 8, 8)
    assert subject.about == {"model": str(tmp_path)}


def test_what_a_folder_claims_is_its_convention_and_how_diffusers_samples_it(tmp_path):
    saved(tmp_path, prediction_type="v_prediction", clip_sample=True)
    sheet = {heading: dict(pairs) for heading, pairs in inspect(tmp_path).items()}
    model, sampling = sheet["model"], sheet["sampled by diffusers with"]
    assert model["process"].startswith("DiscreteVP(")
    assert model["output and label"] == "VPrediction(label=TimeLabel(scale=999))"
    assert (model["points"], model["classes"]) == ("1×8×8", "none")
    assert model["parameters"] == f"{sum(p.numel() for p in network().parameters()):,}"
    assert (sampling["scheduler"], sampling["clip sample"]) == ("DDPMScheduler", "True")


def test_a_field_of_diffusers_is_saved_and_loaded_with_its_code_trusted(tmp_path):
    saved(tmp_path / "p")
    field = sf.load(tmp_path / "p")
    sf.save(field, tmp_path / "m")
    with pytest.raises(UserError, match=r"diffusers.*code that is not part of scorefield"):
        sf.load(tmp_path / "m")
    found, x = sf.load(tmp_path / "m", trust_code=True), points()
    with torch.no_grad():
        assert torch.equal(found.denoise(x, 0.5), field.denoise(x, 0.5))


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("my_pipeline")
    pixels = torch.randint(0, 256, (24, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    np.savez("my_images.npz", x=pixels.to(torch.uint8).numpy())
    (tmp_path / "my_images").mkdir()
    for k, image in enumerate(pixels.to(torch.uint8).numpy()):
        Image.fromarray(image[0]).save(f"my_images/{k}.png")
    page = Path(__file__).parents[2] / "docs" / "models.md"
    section = page.read_text().partition("## My diffusers model")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ scorefield (.*?)(?:  +#.*)?$", section, re.MULTILINE)
    assert {line.split()[0] for line in commands} == {"inspect", "check", "sample", "likelihood"}
    for line in commands:
        assert main(shlex.split(line.replace("10min", "1s").replace("--n 8", "--n 2"))) == 0


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(InteropError, match=r"has no model_index\.json: save a pipeline"):
        load(tmp_path)
    saved(tmp_path)
    index = tmp_path / "model_index.json"
    written = json.loads(index.read_text())
    for name, kind, match in (
        ("unet", "UNet1DModel", "unet is UNet1DModel, it must be one of UNet2DModel"),
        ("scheduler", "ScoreSdeVeScheduler", "scheduler is ScoreSdeVeScheduler, it must be one of"),
    ):
        index.write_text(json.dumps({**written, name: ["diffusers", kind]}))
        with pytest.raises(InteropError, match=match):
            load(tmp_path)
    for damaged in ("{", "[1]", '{"unet": 5}', '{"unet": ["a", "b", "c"]}'):
        index.write_text(damaged)
        with pytest.raises(InteropError, match="does not describe a pipeline"):
            load(tmp_path)
    index.write_text(json.dumps(written))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InteropError, match="unet cannot be read"):
        load(tmp_path)


def test_weights_that_are_missing_are_named(tmp_path):
    saved(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)
    with pytest.raises(InteropError, match=r"conv_in\.weight"):
        load(tmp_path)


def test_continuous_labels_are_refused():
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous"
    )
    with pytest.raises(InteropError, match="timestep_type is not 'discrete'"):
        field_of(network(), scheduler)
