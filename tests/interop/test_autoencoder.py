"""Latents of images: encoded once by an autoencoder of diffusers, drawn, and decoded again."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.cli import main
from scorefield.config.build import build_source
from scorefield.config.resolve import load_config
from scorefield.data import encode as encoding
from scorefield.data.encode import encode
from scorefield.data.form import Form
from scorefield.data.latent_packs import LatentPack
from scorefield.data.latents import LatentSource
from scorefield.data.layouts import contents_of
from scorefield.data.pack import pack
from scorefield.data.packed import Pack
from scorefield.errors import ConfigError, UserError
from scorefield.evaluation.pixels import pixels_of
from scorefield.evaluation.protocol import protocol_of
from scorefield.interop.diffusers.autoencoder import open_autoencoder
from scorefield.networks.dinov2 import DinoV2
from scorefield.noise import Noise
from scorefield.runs.classes import classes_by_index
from scorefield.runs.run import Run

diffusers = pytest.importorskip("diffusers")

N, SIDE = 70, 16


def saved(folder, seed=0, **settings):
    """A small autoencoder with random weights, whose latents have half the sides of images."""
    torch.manual_seed(seed)
    network = diffusers.AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        **{"scaling_factor": 0.7, "shift_factor": 0.2, **settings},
    )
    network.save_pretrained(folder)
    return network.eval()


CONFIG = """\
extends: imagenet256_latent/m0
data: {shape: null, classes: null, dataset: null}
field: {network: {channels: 16, multipliers: [1, 1], blocks: 1, attention: []}}
train: {steps: 2, batch_size: 8, accumulate: 1, checkpoint_every: 2, snapshot_every: null}
eval: {nfes: [3], samples: 40, pairs: 2, sigmas: [0.5], points: 2}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with packed images of two classes, an autoencoder, and the latents of the images."""
    folder = tmp_path_factory.mktemp("latents")
    index = torch.arange(N)
    pixels = Noise(0).integers("pixels", 256, (N, 3, SIDE, SIDE), torch.tensor(0)).byte()
    np.savez(folder / "set.npz", images=pixels.numpy(), labels=(index % 2).numpy())
    path = folder / "set.npz"
    pack(path, contents_of(path, 3), Form(3, SIDE), folder / "pack")
    saved(folder / "vae")
    encode(Pack.read(folder / "pack"), open_autoencoder(folder / "vae"), folder / "latents")
    return folder


def test_encoding_and_decoding_are_those_of_diffusers(made):
    network = diffusers.AutoencoderKL.from_pretrained(made / "vae").eval()
    pixels, labels = Pack.read(made / "pack").arrays("train")
    stored, classes = LatentPack.read(made / "latents").arrays("train")
    x = torch.from_numpy(np.array(pixels)) / 127.5 - 1
    with torch.no_grad():
        posterior = network.encode(x).latent_dist
        wanted = torch.cat((posterior.mean, posterior.std), dim=1)
        torch.testing.assert_close(torch.tensor(stored), wanted, rtol=1e-6, atol=1e-6)
        z = 0.7 * (posterior.mean - 0.2)
        images = network.decode(posterior.mean).sample
    decoded = open_autoencoder(made / "vae").decode(z)
    torch.testing.assert_close(decoded, images, rtol=1e-6, atol=1e-5)
    assert stored.dtype == np.float32
    assert np.array_equal(labels, classes)
    LatentPack.read(made / "latents").check()


def test_points_are_drawn_from_the_distributions_of_the_encoder(made):
    """Of 64 points 400 times: any of the 16,384 standardised means exceeds 6.8 standard errors with
    probability 2e-7; their mean square is 1.
    """
    source = LatentSource(made / "latents")
    assert (source.size, source.count("test"), source.classes) == (67, 3, 2)
    stored = source.at("train", torch.arange(64)).double()
    mean, std = stored.chunk(2, dim=1)
    draws = 400
    index = torch.arange(draws)[:, None] * 64 + torch.arange(64)
    z = source.values(stored.float().expand(draws, *stored.shape), Noise(3), index, torch.float32)
    e = ((z.double() / 0.7 + 0.2) - mean) / std
    assert float(e.mean(dim=0).abs().max()) < 6.8 / draws**0.5
    assert abs(float(e.square().mean()) - 1) < 6 * (2 / e.numel()) ** 0.5
    # The moments that are computed from sums are those of the mixture over all images.
    every = source.at("train", torch.arange(67)).double()
    m, s = every.chunk(2, dim=1)
    torch.testing.assert_close(source.mean, 0.7 * (m.mean(dim=0) - 0.2))
    variance = (m.square() + s.square()).mean() - m.mean(dim=0).square().mean()
    assert source.std == pytest.approx(0.7 * float(variance) ** 0.5, rel=1e-9)


def test_a_batch_is_a_function_of_its_step_and_an_image_is_never_drawn_twice(made):
    source, again = LatentSource(made / "latents"), LatentSource(made / "latents")
    first, later = source.batch(Noise(0), 1, 67), source.batch(Noise(0), 2, 67)
    assert torch.equal(first, again.batch(Noise(0), 1, 67))
    rows = again.read(Noise(0), 1, 67, rows=slice(5, 9))
    assert torch.equal(first[5:9], again.finish(rows, Noise(0)))
    labels = [source.batch_classes(Noise(0), k, 67) for k in (1, 2)]
    assert [int(some.sum()) for some in labels] == [int(source.labels("train").sum())] * 2
    # Two epochs visit the same images in other orders, and draw other points of each.
    stored = [source.read(Noise(0), k, 67)[1][:, 0, 0, 0].sort() for k in (1, 2)]
    assert torch.equal(stored[0].values, stored[1].values)
    assert not torch.equal(stored[0].indices, stored[1].indices)
    pairs = first[stored[0].indices], later[stored[1].indices]
    assert not (pairs[0] == pairs[1]).flatten(1).all(dim=1).any()
    near = source.on(torch.device("cpu"), 10**9)
    assert torch.equal(near.finish(near.read(Noise(0), 1, 67), Noise(0)), first)


def test_an_interrupted_encoding_resumes_to_the_same_bytes(made, tmp_path, monkeypatch):
    encoder, images = open_autoencoder(made / "vae"), Pack.read(made / "pack")
    monkeypatch.setattr(encoding, "_SETTLED_EVERY", 0.0)
    blocks = []

    class Stopping:
        codec, device = encoder.codec, encoder.device
        latent_shape = staticmethod(encoder.latent_shape)

        def encode(self, some):
            blocks.append(len(some))
            if len(blocks) == 2:
                raise KeyboardInterrupt
            return encoder.encode(some)

    with pytest.raises(KeyboardInterrupt):
        encode(images, Stopping(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    again = encode(images, Stopping(), tmp_path / "out")
    assert blocks == [32, 32, 32, 6]
    assert again.sha256 == LatentPack.read(made / "latents").sha256
    for name in ("train.npy", "sums.npz", "latents.json", "train_labels.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (made / "latents" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in (made / "latents").iterdir()
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("none", "there is no autoencoder in"),
        ("kind", "holds a network of class UNet2DModel, it must be AutoencoderKL"),
        ("weights", "cannot be read"),
        ("truncated", "cannot be read"),
        ("images", "holds no packed images: make them, with scorefield data pack"),
        ("size", "multiples of 4, and these are 3×18×18"),
        ("nan", "gives numbers that are not finite for image 0 of train"),
        ("latents_mean", "scales its latents by latents_mean"),
    ],
)
def test_what_cannot_be_encoded_is_one_sentence(made, tmp_path, capsys, change, words):
    vae, source = tmp_path / "vae", made / "pack"
    network = saved(vae)
    weights = vae / "diffusion_pytorch_model.safetensors"
    config = json.loads((vae / "config.json").read_text())
    match change:
        case "none":
            vae = tmp_path / "nothing"
        case "kind":
            (vae / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
        case "weights":
            weights.unlink()
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:3000])
        case "images":
            source = made / "latents"
        case "size":
            vae = tmp_path / "deeper"
            diffusers.AutoencoderKL(
                block_out_channels=(4, 4, 4),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                norm_num_groups=2,
            ).save_pretrained(vae)
            source = tmp_path / "odd"
            np.save(tmp_path / "odd.npy", np.zeros((3, 18, 18, 3), np.uint8))
            path = tmp_path / "odd.npy"
            pack(path, contents_of(path, 3), Form(3, 18), source)
        case "nan":
            network.encoder.conv_in.bias.data.fill_(torch.nan)
            network.save_pretrained(vae)
        case "latents_mean":
            (vae / "config.json").write_text(json.dumps({**config, "latents_mean": [0.0] * 4}))
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["data", "encode", str(source), "--vae", str(vae), *out]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in told
    assert "Traceback" not in told


def test_latents_are_decoded_by_the_weights_that_encoded_them(made, tmp_path):
    source = LatentSource(made / "latents")
    z = source.reference(2, 0)
    pixels = pixels_of(source, True)
    assert pixels.bytes(z).shape == (2, 3, SIDE, SIDE)
    assert torch.equal(pixels.images(z), open_autoencoder(made / "vae").decode(z))
    # A copy with another scale in its configuration gives the same images.
    saved(tmp_path / "scaled", scaling_factor=0.3, shift_factor=None)
    assert torch.equal(pixels_of(source, True, vae=tmp_path / "scaled").images(z), pixels.images(z))
    saved(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"have the SHA-256 .*…, and the latents were encoded by"):
        pixels_of(source, True, vae=tmp_path / "other")
    moved = tmp_path / "moved"
    (made / "vae").rename(moved)
    try:
        with pytest.raises(UserError, match=r"is no longer in .*: give its folder with --vae"):
            pixels_of(source, True)
        assert torch.equal(pixels_of(source, True, vae=moved).bytes(z), pixels.bytes(z))
    finally:
        moved.rename(made / "vae")


@pytest.mark.slow
def test_a_run_on_latents_is_sampled_evaluated_and_reported_in_pixels(made, tmp_path, capsys):
    """The images of its metrics are the decoded latents of its samples, byte by byte."""
    index, weights = torch.arange(150), tmp_path / "small.pth"
    pixels = Noise(1).integers("pixels", 256, (150, 3, SIDE, SIDE), torch.tensor(0)).byte().numpy()
    parts = {"train": pixels[:100], "test": pixels[100:]}
    labels = {"train_labels": index[:100].numpy() % 2, "test_labels": index[100:].numpy() % 2}
    np.savez(tmp_path / "set.npz", **parts, **labels)
    generator = torch.Generator().manual_seed(0)
    state = DinoV2(64, 1, 16, 16).state_dict()
    state = {k: torch.randn(t.shape, generator=generator) * 0.2 for k, t in state.items()}
    torch.save(state, weights)
    saved(tmp_path / "vae")
    small, root = tmp_path / "small.yaml", tmp_path / "runs"
    small.write_text(CONFIG)
    images, latents = str(tmp_path / "pack"), str(tmp_path / "latents")
    vae = ["--vae", str(tmp_path / "vae")]
    assert main(["data", "pack", str(tmp_path / "set.npz"), "--out", images, "--jobs", "1"]) == 0
    assert main(["data", "encode", images, *vae, "--out", latents, "--device", "cpu"]) == 0
    assert main(["data", "show", latents, "--check"]) == 0
    assert main(["train", str(small), f"data.path={latents}", "--root", str(root)]) == 0
    (folder,) = root.glob("latents/*/seed0")
    run = Run.open(folder)
    assert run.config.field.sigma_data is None
    assert main(["sample", str(folder), "--n", "4", "--nfe", "3", "--label", "1"]) == 0
    measure = ["eval", str(folder), "--extractor", str(weights), "--n", "48"]
    assert main([*measure, "--png"]) == 0
    assert "FD-DINOv2" in capsys.readouterr().out
    of = classes_by_index(run.source(), 0)
    samples = (
        protocol_of(run.config)
        .method(3)
        .sample(
            run.field(), seed=0, index=torch.arange(48), batch_size=48, classes=of(torch.arange(48))
        )
    )
    decoded = pixels_of(run.source(), True).bytes(samples)
    files = sorted(folder.glob("samples/*/*.png"))
    assert len(files) == 48
    for k, file in enumerate(files):
        assert np.array_equal(np.asarray(Image.open(file)), decoded[k].permute(1, 2, 0).numpy())
    assert main(["report", "--root", str(root), "--out", str(tmp_path / "page")]) == 0
    shutil.move(images, tmp_path / "elsewhere")
    capsys.readouterr()
    assert main([*measure[:-1], "50"]) == 2
    assert "put the same pack there" in capsys.readouterr().err
    shutil.move(tmp_path / "vae", tmp_path / "moved")
    assert main([*measure[:-1], "50"]) == 2
    assert "give its folder with --vae" in capsys.readouterr().err
    given = ["--vae", str(tmp_path / "moved")]
    assert main(["sample", str(folder), "--n", "3", "--nfe", "3", *given]) == 0


def of_preset(data):
    """The configuration of a preset with keys of its data."""
    overrides = [f"data.{key}={value}" for key, value in data.items()]
    return load_config("imagenet256_latent/m0", overrides)


def test_what_contradicts_latents_is_refused_by_its_key(made):
    given = {"shape": "null", "path": f"{made}/latents", "classes": "null"}
    for wrong, words in (
        ({"shape": "[4, 32, 32]"}, r"data.shape is \(4, 32, 32\), and that of the latents"),
        ({"sha256": 64 * "a"}, "data.sha256 is aaaaaaaaaaaa…, and "),
        ({"path": f"{made}/pack"}, "holds no latents"),
    ):
        with pytest.raises(ConfigError, match=words):
            of_preset(given | wrong)
    assert of_preset(given).data.shape == (4, 8, 8)
    assert of_preset(given).data.classes == 2
    config = of_preset({})
    with pytest.raises(UserError, match="give latents, made by scorefield data encode"):
        build_source(config).batch(Noise(0), 0, 1)
