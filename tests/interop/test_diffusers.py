"""Models of diffusers, compared with diffusers itself."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import scorefield as sf
from scorefield.errors import UserError
from scorefield.fields.claims import claims
from scorefield.interop.diffusers import field_of, load
from scorefield.interop.errors import InteropError
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES
from scorefield.runs.inspection import inspect
from scorefield.runs.subject import open_subject

diffusers = pytest.importorskip("diffusers")

SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "laplace": {"beta_schedule": "laplace"},
    "exp": {"beta_schedule": "exp"},
    "trained": {"trained_betas": torch.linspace(1e-3, 0.04, 500).tolist()},
    "v": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "zero": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
LEVELS = (0.02, 0.5, 2.0, 30.0)


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
    kind = "HeunDiscreteScheduler" if name == "exp" else "DDPMScheduler"
    net, scheduler = saved(tmp_path, scheduler=kind, **SCHEDULES[name])
    field, count = load(tmp_path), len(scheduler.betas)
    form = {"v": "v", "zero": "v", "sample": "denoiser"}.get(name, "noise")
    # Those of the scheduler, which are rounded to single precision at every step.
    products = (1 - scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(products, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)
    steps, x = torch.linspace(0, count - 1, 20).long(), points(20)
    with torch.no_grad():
        output = net(x, steps).sample
    left = products[steps].reshape(-1, 1, 1, 1)
    alpha, sigma = left.sqrt(), (1 - left).sqrt()
    noise = {
        "noise": output,
        "v": alpha * output + sigma * x,
        "denoiser": (x - alpha * output) / sigma,
    }[form]
    found = field.predict_noise(x.double(), steps / (count - 1)).detach()
    # A predicted denoiser holds the noise to its own rounding over sigma.
    scale = sigma if form == "denoiser" else 1.0
    torch.testing.assert_close(scale * found, scale * noise.double(), rtol=0, atol=1e-6)


def pipeline_samples(net, scheduler, x, steps):
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
def test_samples_of_ddim_are_those_of_diffusers(name, spacing, clip):
    settings = {"timestep_spacing": spacing, "clip_sample": clip, **SCHEDULES[name]}
    net, scheduler = network().eval(), diffusers.DDIMScheduler(**settings)
    start = points().double()
    # Where sampling begins just before the end, a longer first step shows it.
    steps = 20 if name == "zero" else 8
    expected, indices = pipeline_samples(net, scheduler, start, steps)
    field = field_of(net, scheduler)
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
    assert subject.about == {
        "pipeline": str(tmp_path),
        "network": "UNet2DModel",
        "scheduler": "DDPMScheduler",
        "points": "images in [-1, 1]",
        "clipping": "the scheduler clips the denoised state to ±1, which is another field, "
        "sf.ClippedField of this one",
    }
    assert dict(claims(subject.field))["convention"] == (
        "DDPMScheduler: receives the index of one of 1000 steps, predicts epsilon"
    )


def test_what_a_folder_claims_is_its_convention_and_how_diffusers_samples_it(tmp_path):
    saved(tmp_path, prediction_type="v_prediction", clip_sample=True)
    sheet = {heading: dict(pairs) for heading, pairs in inspect(tmp_path).items()}
    model = sheet["model"]
    assert model["process"].startswith("DiscreteVP with a table of 1000 betas")
    assert model["output and label"] == "VPrediction(label=TimeLabel(scale=999))"
    assert (model["points"], model["classes"]) == ("1×8×8", "none")
    assert model["parameters"] == f"{sum(p.numel() for p in network().parameters()):,}"
    assert sheet["recorded"]["scheduler"] == "DDPMScheduler"
    assert sheet["recorded"]["clipping"].startswith("the scheduler clips the denoised state to ±1")


def test_a_field_of_diffusers_is_saved_and_loaded_with_its_code_trusted(tmp_path):
    saved(tmp_path / "p")
    field = sf.load(tmp_path / "p")
    sf.save(field, tmp_path / "m")
    with pytest.raises(UserError, match=r"diffusers.*code that is not part of scorefield"):
        sf.load(tmp_path / "m")
    found, x = sf.load(tmp_path / "m", trust_code=True), points()
    with torch.no_grad():
        assert torch.equal(found.denoise(x, 0.5), field.denoise(x, 0.5))


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoisers_of_the_schedulers_of_edm(tmp_path, kind, prediction):
    net, made = saved(tmp_path, scheduler=kind, prediction_type=prediction, sigma_data=0.7)
    field = load(tmp_path)
    assert field.sde == sf.EDM(0.002, 80.0)
    for level in LEVELS:
        x, sigma = level * points(), torch.tensor(level)
        with torch.no_grad():
            output = net(made.precondition_inputs(x, sigma), made.precondition_noise(sigma)).sample
        expected = made.precondition_outputs(x, output, sigma)
        found = field.denoise(x, level).detach()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shift_moves_the_steps_and_not_the_field(tmp_path, shift):
    net = network().eval()
    made = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    diffusers.DDPMPipeline(unet=net, scheduler=made).save_pretrained(tmp_path)
    field = load(tmp_path)
    assert field.sde.t_min == pytest.approx(made.sigma_min, rel=1e-6)
    for sigma in (0.01, 0.3, 0.7, 0.99):
        x = points()
        with torch.no_grad():
            velocity = net(x, torch.tensor(1000 * sigma)).sample
        torch.testing.assert_close(field.velocity(x, sigma).detach(), velocity)
        found = field.denoise(x, sigma).detach()
        torch.testing.assert_close(found, x - sigma * velocity, rtol=1e-5, atol=1e-5)


def test_flow_sigmas_of_other_schedulers_are_those_of_flow_matching():
    net, flow = network().eval(), {"use_flow_sigmas": True, "flow_shift": 3.0}
    made = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", **flow)
    expected = field_of(net, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    found, x = field_of(net, made), points()
    assert found.sde == expected.sde
    assert torch.equal(found.score(x, 0.5), expected.score(x, 0.5))
    with pytest.raises(InteropError, match="with use_flow_sigmas it must be 'flow_prediction'"):
        field_of(net, diffusers.UniPCMultistepScheduler(**flow))
    with pytest.raises(InteropError, match="which needs use_flow_sigmas"):
        field_of(net, diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"))
    with pytest.raises(InteropError, match="invert_sigmas is set"):
        field_of(net, diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))


def test_networks_of_variance_exploding_receive_sigma_and_give_the_score(tmp_path):
    net = network(time_embedding_type="fourier")
    made = diffusers.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    diffusers.ScoreSdeVePipeline(unet=net, scheduler=made).save_pretrained(tmp_path)
    net.eval()
    subject = open_subject(tmp_path)
    field = subject.field
    assert subject.transform == UNIT_BYTES
    assert subject.about["points"] == "images in [0, 1]"
    made.set_timesteps(20)
    made.set_sigmas(20)
    own = field.sde.sigma(made.timesteps.double())
    torch.testing.assert_close(own, made.sigmas.double(), rtol=1e-5, atol=0)
    x = own.reshape(-1, 1, 1, 1) * points(20).double()
    with torch.no_grad():
        score = net(x.float(), own.float()).sample.double()
    found = field.predict_noise(x, made.timesteps.double()).detach()
    torch.testing.assert_close(found, -own.reshape(-1, 1, 1, 1) * score, rtol=0, atol=1e-6)
    for level in LEVELS:
        x = level * points()
        with torch.no_grad():
            expected = x + level**2 * net(x, torch.full((3,), level)).sample
        found = field.denoise(x, float(field.sde.time(torch.tensor(level, dtype=torch.float64))))
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-4)


def transformer(**settings):
    torch.manual_seed(0)
    made = {"out_channels": 8, "num_embeds_ada_norm": 5, **settings}
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=1, sample_size=8,
        norm_num_groups=4, **made,
    )  # fmt: skip
    for weight in net.parameters():  # the last layers of a new network are zero
        torch.nn.init.normal_(weight, std=0.3)
    return net.eval()


def test_a_transformer_of_latents(tmp_path):
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=4, latent_channels=4, scaling_factor=0.25
    )
    net, made = transformer(), diffusers.DDIMScheduler()
    diffusers.DiTPipeline(transformer=net, vae=vae, scheduler=made).save_pretrained(tmp_path)
    subject = open_subject(tmp_path)
    field = subject.field
    assert (field.domain.shape, field.classes, field.unlabelled) == ((4, 8, 8), 5, True)
    assert subject.transform is None
    assert subject.about["points"] == "latents, what the encoder of its vae gives, times 0.25"
    steps, x = torch.linspace(0, 999, 20).long(), torch.randn(20, 4, 8, 8)
    classes = torch.arange(20) % 5
    for given, known in ((classes, classes), (None, torch.full((20,), 5))):
        with torch.no_grad():
            output = net(x, steps, known).sample[:, :4]
        found = field.predict_noise(x.double(), steps / 999, given).detach()
        torch.testing.assert_close(found, output.double(), rtol=0, atol=1e-6)
    index = tmp_path / "model_index.json"
    written = json.loads(index.read_text())
    published = {**written, "transformer": ["diffusers", "Transformer2DModel"]}
    index.write_text(json.dumps(published))
    again = load(tmp_path)
    assert torch.equal(again.score(x, 0.5), field.score(x, 0.5))
    with pytest.raises(InteropError, match="drops classes at random"):
        field_of(net.train(), made)


def test_images_are_read_in_the_range_of_the_model_and_latents_from_arrays_only(tmp_path):
    from scorefield.evaluation.given import open_data

    images = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8)
    np.save(tmp_path / "images.npy", np.concatenate([images] * 20))
    name = str(tmp_path / "images.npy")
    for transform, least in ((CENTERED_BYTES, -1.0), (UNIT_BYTES, 0.0)):
        source, levels = open_data(name, (1, 8, 8), transform)
        assert float(source.reference(20, 0, "train").min()) == least
        assert levels.transform == transform
    with pytest.raises(ValueError, match="would be read as images"):
        open_data(name, (1, 8, 8), None)


def test_a_network_without_a_scheduler_is_one_sentence(tmp_path):
    network().save_pretrained(tmp_path / "unet")
    with pytest.raises(InteropError, match="is a network without a scheduler, which states"):
        open_subject(tmp_path / "unet")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"time_embedding_type": "learned", "num_train_timesteps": 1000}, "'learned', a table"),
        ({"time_embedding_type": "fourier"}, "divides by its label"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
    ],
)
def test_labels_that_no_field_has_are_refused(settings, match):
    with pytest.raises(InteropError, match=match):
        field_of(network(**settings).eval(), diffusers.DDPMScheduler())


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(InteropError, match=r"has no model_index\.json: save a pipeline"):
        load(tmp_path)
    saved(tmp_path)
    index = tmp_path / "model_index.json"
    written = json.loads(index.read_text())
    for name, kind, match in (
        ("unet", "UNet1DModel", "unet is UNet1DModel, it must be one of UNet2DModel"),
        ("scheduler", "KarrasVeScheduler", "scheduler is KarrasVeScheduler, it must be one of"),
    ):
        index.write_text(json.dumps({**written, name: ["diffusers", kind]}))
        with pytest.raises(InteropError, match=match):
            load(tmp_path)
    for damaged in ("{", "[1]", '{"unet": 5}', '{"unet": ["a", "b", "c"]}'):
        index.write_text(damaged)
        with pytest.raises(
            InteropError, match=r"model_index\.json(: unet| is not a file of diffus)"
        ):
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


@pytest.mark.slow
def test_a_model_is_distilled_into_a_potential_by_its_own_samples(tmp_path):
    """A U-Net with random weights is no gradient; its projection is one up to rounding, and nearer
    to it than the untrained potential."""
    saved(tmp_path)
    teacher = load(tmp_path)
    x = sf.Heun(8).sample(teacher, n=64, seed=0)
    net = sf.UNet(teacher.domain.shape, channels=8, multipliers=(1, 2), blocks=1)
    student = sf.PotentialField(net, teacher.sde, sigma_data=float(x.std()), head="inner")
    loss = sf.Distillation(sigma_data=float(x.std()), teacher=teacher)
    run = sf.fit(
        student,
        x,
        objective=sf.Objective(loss),
        steps=150,
        batch_size=16,
        log_every=10,
        seed=0,
        quiet=True,
    )
    first, last = (run.history[k]["distillation"] for k in (0, -1))
    assert last < 0.5 * first
    protocol = sf.Protocol(sigmas=[0.5, 2.0], n=2, dtype=torch.float64)
    data = x.double()
    for _, curl in sf.relative_asymmetry(student.double(), data, protocol):
        assert curl.value < 1e-10
    for _, curl in sf.relative_asymmetry(teacher.double(), data, protocol):
        assert curl.value > 1e-3
