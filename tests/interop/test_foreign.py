"""Models that arrive as a configuration and a state dict: what is read, and what is refused."""

import json
import pickle
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import scorefield as sf
from scorefield.errors import RunError, UserError
from scorefield.fields.claims import claims
from scorefield.interop import edm, edm2, foreign
from scorefield.interop.edm.networks import DhariwalUNet, SongUNet
from scorefield.interop.errors import InteropError
from scorefield.interop.folder import arguments
from scorefield.interop.guided_diffusion import Flags, UNetModel
from scorefield.runs.subject import open_subject
from tests.interop import originals
from tests.interop.foreign import LIBRARIES, denoised, field_of, state_of

KINDS = {"edm": "edm_ddpmpp", "edm2": "edm2_latents", "guided_diffusion": "guided_cosine"}


def saved(folder, case, config=None, state=None):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(config or originals.CASES[case]))
    torch.save(state or state_of(case, torch.float32), folder / "model.pt")
    return folder


@pytest.mark.parametrize("case", [c for c in originals.CASES if originals.checkout(c)])
def test_the_denoiser_is_that_of_the_published_code(case):
    net, denoise = originals.original(case)
    with torch.no_grad():
        sigma, expected = denoise()
    field = LIBRARIES[originals.family(case)].field_of(originals.CASES[case], net.state_dict())
    found = denoised(field, case, sigma)
    error = (found - expected).abs().flatten(1).amax(1) / expected.abs().flatten(1).amax(1)
    assert float(error.amax()) < 1e-10


@pytest.mark.parametrize("case", KINDS.values())
def test_a_folder_is_a_model_of_the_command_line(case, tmp_path):
    folder = saved(tmp_path / "model", case)
    label = 1 if case in originals.LABELS else None
    subject = open_subject(folder, label=label)
    field = foreign.load(folder)
    assert not field.training
    assert next(field.parameters()).dtype == torch.float32
    assert subject.about == {"model": str(folder), "convention": field.backbone.convention}
    assert (subject.transform is None) == (case == "edm2_latents")
    assert ("convention", field.backbone.convention) in claims(field)
    x, t = torch.randn(2, *field.domain.shape), torch.full((2,), 0.5)
    torch.testing.assert_close(subject.field.denoise(x, t), field.denoise(x, t, label))


def test_weights_of_safetensors_and_half_precision_are_the_same(tmp_path):
    folder = saved(tmp_path / "model", "edm2_images")
    before = foreign.load(folder)
    (folder / "model.pt").unlink()
    # As the published code stores them.
    halved = {k: v.half().contiguous() for k, v in state_of("edm2_images").items()}
    save_file(halved, folder / "model.safetensors")
    after = foreign.load(folder)
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, rtol=1e-3, atol=1e-3)


def test_saving_is_refused_in_one_sentence(tmp_path):
    """Their folder is their file."""
    with pytest.raises(UserError, match=r"is a UNet, which cannot be made again from a file$"):
        sf.save(field_of("edm2_images"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_conventions_state_what_the_network_predicts():
    words = {
        "edm_ddpmpp": "EDMPrecond of EDM, SongUNet: D(x, σ) = c_skip x + c_out F(c_in x, ",
        "ve_residual": "D(x, σ) = x + σ F(x, ln(σ / 2)) with x = x₀ + σ ε; points are images in",
        "iddpm_adm": "the first half of its channels; points are images in [-1, 1], 3×8×8; 3 cla",
        "edm2_latents": "points are latents, 4×8×8; 3 classes; these are 0.5 (z − m) / s",
        "guided_cosine": "F(α x₀ + σ ε, 999.75 t) is the noise ε at t = i / 3999",
    }
    for case, part in words.items():
        assert part in field_of(case, torch.float32).backbone.convention


def test_classes_are_needed_where_none_was_trained():
    x, t = torch.zeros(2, 3, 8, 8), torch.full((2,), 0.5)
    with pytest.raises(UserError, match="needs their classes"):
        field_of("ve_ncsnpp", torch.float32).denoise(x, t)
    field = field_of("edm_ddpmpp", torch.float32)
    torch.testing.assert_close(field.denoise(x, t), field.denoise(x, t, 3))


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS.values())
def test_derivatives_of_every_kind(case):
    field = field_of(case, torch.float32)
    kind = 1 if case in originals.LABELS else None
    if kind is not None:
        field = sf.OneClass(field, kind)
    protocol = sf.Protocol([0.5], n=2)
    found = sf.relative_asymmetry(field, originals.points(case)[0], protocol, probes=2)
    # No random network is a gradient.
    assert 0.01 < found.estimates[0].value < 1
    x, t = originals.points(case)[0].float()[:2], torch.tensor([0.3, 0.6])
    v = originals.points(case)[1].float()[:2]
    with sf.differentiable():
        _, forward = torch.func.jvp(lambda y: field.score(y, t), (x,), (v,))
        _, pull = torch.func.vjp(lambda y: field.score(y, t), x)
        # Of the same Jacobian.
        torch.testing.assert_close((forward * v).sum(), (pull(v)[0] * v).sum(), rtol=1e-3, atol=0)
        loss = field.score(x.requires_grad_(), t).square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    assert bool(second.isfinite().all())
    assert bool(second.abs().amax() > 0)


def song(side, multipliers, **options):
    return SongUNet(side, 3, 3, channel_mult=multipliers, **options)


def documented():
    """The network of the configuration in the documentation, ADM for ImageNet at 64 pixels."""
    text = (Path(__file__).parents[2] / "docs" / "foreign_models.md").read_text()
    config = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    kind = config.pop("class")
    return UNetModel(Flags(**arguments(kind, Flags, config)), 1000)


UPDOWN = {"attention_resolutions": "32,16,8", "resblock_updown": True}
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}
SIZES = {
    "CIFAR-10, DDPM++": (lambda: song(32, [2, 2, 2]), 56),
    "CIFAR-10, NCSN++": (lambda: song(32, [2, 2, 2], **NCSNPP), 56),
    "FFHQ, DDPM++": (lambda: song(64, [1, 2, 2, 2]), 62),
    "ImageNet, ADM of EDM": (lambda: DhariwalUNet(64, 3, 3, 1000), 296),
    "EDM2-XS": (lambda: edm2.UNet(64, 4, 1000, model_channels=128), 125),
    "EDM2-M": (lambda: edm2.UNet(64, 4, 1000, model_channels=256), 498),
    "EDM2-XXL": (lambda: edm2.UNet(64, 4, 1000, model_channels=448), 1523),
    "ADM, 64": (documented, 296),
    "ADM, 256": (lambda: UNetModel(Flags(256, 256, learn_sigma=True, **UPDOWN), 1000), 554),
}
"""Published networks, and their parameters in millions, as the three papers state them."""


@pytest.mark.parametrize("name", SIZES)
def test_published_networks_have_the_published_sizes(name):
    make, millions = SIZES[name]
    with torch.device("meta"):
        network = make()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def changed(case, **changes):
    config = {**originals.CASES[case], **changes}
    return {key: value for key, value in config.items() if value is not ...}


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("edm_ddpmpp", {"num_block": 1}, "SongUNet has no argument 'num_block'; the near"),
        ("edm_ddpmpp", {"in_channels": 3}, "SongUNet has no argument 'in_channels'"),
        ("edm_ddpmpp", {"img_channels": ...}, "the configuration of EDMPrecond lacks img_channels"),
        ("edm_ddpmpp", {"encoder_type": "unet"}, "encoder_type is 'unet', it must be one of"),
        ("edm_ddpmpp", {"model_channels": "8"}, "model_channels is '8', it must be a whole number"),
        ("edm_ddpmpp", {"channel_mult": [1, 0.5]}, "a list of which each is a whole number"),
        ("edm_ddpmpp", {"sigma_data": -1}, "sigma_data must be positive"),
        ("edm_ddpmpp", {"img_resolution": 9}, "2 levels fit images whose sides are multiples of 2"),
        ("edm_ddpmpp", {"resample_filter": [1, 2, 1]}, "must have an even number of taps"),
        ("edm_ddpmpp", {"model_channels": 2}, "there is no network of this configuration"),
        ("edm_ddpmpp", {"class": "Precond2"}, "class is 'Precond2'"),
        ("edm_ddpmpp", {"label_dim": 4}, r"map_label.weight \(8, 3\) instead of \(8, 4\)"),
        ("edm_ddpmpp", {"num_blocks": 10**5}, "100000 blocks of a level are more than 100"),
        ("vp_ddpmpp", {"M": 10**7}, "M is 10000000, it must be a whole number up to 1000000"),
        ("vp_ddpmpp", {"M": 1}, "M must be an integer of at least 2"),
        ("iddpm_adm", {"sigma_data": 0.5}, "DhariwalUNet has no argument 'sigma_data'"),
        ("edm2_latents", {"label_dim": ...}, "the configuration of Precond lacks label_dim"),
        ("edm2_latents", {"clip_act": "no"}, "clip_act is 'no', it must be a number or null"),
        ("guided_cosine", {"noise_schedule": "sqrt"}, "noise_schedule is 'sqrt', it must be"),
        ("guided_cosine", {"channel_mult": "1,a"}, "channel_mult is '1,a', it must be numbers"),
        ("guided_cosine", {"channel_mult": ""}, "images of side 8 need channel_mult"),
        ("guided_cosine", {"class_cond": True}, "lacks label_emb.weight, and class_cond is true"),
        ("guided_cosine", {"num_heads": 5}, "64 channels cannot be shared out to 5 heads"),
        ("guided_cosine", {"clip_denoised": True}, "UNetModel has no argument 'clip_denoised'"),
    ],
)  # fmt: skip
def test_other_configurations_are_one_sentence(case, changes, message, tmp_path):
    folder = saved(tmp_path / "model", case, changed(case, **changes))
    with pytest.raises(InteropError, match=message) as told:
        foreign.load(folder)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("case", KINDS.values())
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, k: s.pop(k), "the state dict lacks"),
        (lambda s, k: s.update(extra=torch.zeros(1)), "has, beside what is expected, extra"),
        (lambda s, k: s.update({k: torch.zeros(3)}), r"has other shapes of .* \(3,\) instead of"),
        (lambda s, k: s.update({k: s[k].long()}), "are torch.int64, not real numbers"),
    ],
)
def test_other_weights_are_one_sentence(case, change, message, tmp_path):
    state = state_of(case, torch.float32)
    change(state, next(k for k in state if k.endswith("8_conv.weight") or "input_blocks.0" in k))
    with pytest.raises(InteropError, match=message):
        foreign.load(saved(tmp_path / "model", case, state=state))


def test_another_table_of_noise_levels_is_an_error():
    state = state_of("iddpm_song")
    field = edm.field_of(originals.CASES["iddpm_song"], state)
    times = torch.linspace(1, 0, 400, dtype=torch.float64)
    table = torch.cat((field.sde.noise_level(times), torch.zeros(1, dtype=torch.float64)))
    edm.field_of(originals.CASES["iddpm_song"], {**state, "u": table.float()})
    with pytest.raises(InteropError, match="another table than that of M, C_1 and C_2"):
        edm.field_of(changed("iddpm_song", C_2=0.008), {**state, "u": table.float()})


def test_folders_that_lack_something_are_one_sentence(tmp_path):
    folder = saved(tmp_path / "model", "edm_ddpmpp")
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(InteropError, match=r"has 2 of these files"):
        foreign.load(folder)
    (folder / "model.pt").unlink()
    with pytest.raises(InteropError, match="is truncated or not a safetensors file"):
        foreign.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InteropError, match="has 0 of these files"):
        foreign.load(folder)
    for text, message in (
        ("{", "is not JSON"),
        ("[1]", "must have the arguments of a network"),
        ("{}", "its class as 'class'"),
        ('{"class": "EDMPrecnd"}', "the nearest is 'EDMPrecond'"),
    ):
        (folder / "model.json").write_text(text)
        with pytest.raises(InteropError, match=message):
            foreign.load(folder)
    with pytest.raises(InteropError, match=r"model\.json cannot be read"):
        foreign.load(tmp_path)


class Published(nn.Module):
    """A network as EDM pickles it: with code, its arguments, and its weights."""

    ran: list = []  # noqa: RUF012

    def __init__(self, **arguments):
        super().__init__()
        self.init_kwargs = arguments

    def __setstate__(self, state):
        self.ran.append(True)
        super().__setstate__(state)


@pytest.fixture(autouse=True)
def nothing_ran():
    Published.ran.clear()


def test_a_pickle_is_refused_and_its_recipe_works(tmp_path, monkeypatch):
    case = "edm_ddpmpp"
    config = dict(originals.CASES[case])
    kind = types.new_class(config.pop("class"), (Published,))
    kind.__module__ = __name__
    monkeypatch.setattr(sys.modules[__name__], kind.__name__, kind, raising=False)
    network, weights = kind(**config), state_of(case, torch.float32)
    monkeypatch.setattr(kind, "state_dict", lambda self: weights)
    file = tmp_path / "network-snapshot.pkl"
    file.write_bytes(pickle.dumps({"ema": network}))
    with pytest.raises(
        InteropError, match="which was neither read nor run; where the code"
    ) as told:
        open_subject(file)
    assert not Published.ran
    assert "\n" not in str(told.value)
    # What it says is what works where the code is.
    recipe = str(told.value).partition('python -c "')[2].partition('" FILE')[0]
    monkeypatch.setattr(sys, "argv", ["-c", str(file), str(tmp_path / "model")])
    exec(recipe, {})
    assert Published.ran
    field = foreign.load(tmp_path / "model")
    assert field.backbone.state_dict().keys() <= {k.removeprefix("model.") for k in weights}


def test_code_in_the_state_dict_is_refused(tmp_path):
    for case, recipe in (("edm_ddpmpp", "net.init_kwargs"), ("guided_cosine", "UNetModel")):
        folder = saved(tmp_path / case, case)
        torch.save(Published(), folder / "model.pt")
        with pytest.raises(InteropError, match=r"Published.* nothing was run; where") as told:
            foreign.load(folder)
        assert recipe in str(told.value)
    assert not Published.ran


def test_a_model_of_known_classes_needs_one_on_the_command_line(tmp_path):
    with pytest.raises(RunError, match="knows points of one class only"):
        open_subject(saved(tmp_path / "model", "edm2_latents"))
