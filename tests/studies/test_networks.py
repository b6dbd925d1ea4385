"""What networks and machines have in common before they are compared."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield import (
    EDM,
    VE,
    VP,
    Cosine,
    DiscreteVP,
    EquivariantLocalScore,
    IdealScore,
    LocalScore,
    MinimalResNet,
    MinimalUNet,
    PreconditionedField,
    digits,
)
from scorefield.config.resolve import load_config
from scorefield.errors import RunError
from scorefield.interop.convolutional import state_of
from scorefield.runs.run import Run
from scorefield.runs.subject import Subject
from scorefield.samplers.grid import grid_times
from scorefield.studies.networks import (
    class_of,
    closed_form,
    open_networks,
    padding_of,
    read_images,
    reverse_process,
    with_process,
)


@pytest.fixture
def fashion(tmp_path):
    """A folder of 30 images to train on, of which the first 20 have class 0, and 5 others."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 30), ("t10k", 5)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) >= 20).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(">BBBB", 0, 0, 8, array.ndim)
            head += struct.pack(f">{array.ndim}i", *array.shape)
            with gzip.open(tmp_path / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return tmp_path


def test_fewer_images_are_a_part_of_more():
    some, more = read_images("digits", n=20), read_images("digits", n=50)
    assert torch.equal(some.images, more.images[:20])
    assert torch.equal(some.labels, more.labels[:20])
    assert len(read_images("digits").images) == 1437
    assert float(some.images.min()) == -1


def test_images_keep_their_labels_and_are_never_held_out():
    train, labels = digits().labelled("train")
    known = {bytes(x.numpy()): int(y) for x, y in zip(train, labels, strict=True)}
    images = read_images("digits", n=200)
    assert [known[bytes(x.numpy())] for x in images.images] == images.labels.tolist()
    held_out = images.held_out(360, seed=3)
    test, _ = digits().labelled("test")
    assert {bytes(x.numpy()) for x in held_out} == {bytes(x.numpy()) for x in test}


def test_images_of_files_lie_between_minus_one_and_one(fashion):
    images = read_images("fashion_mnist", fashion)
    assert images.shape == (1, 28, 28)
    assert (float(images.images.min()), float(images.images.max())) == (-1, 1)
    assert images.labels.bincount().tolist() == [20, 10]
    # The order of the file, in which a class comes first, is not that of the images.
    assert 0 < int(images.labels[:20].sum()) < 20
    assert len(class_of(images, 1)) == 10


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda: read_images("digits", n=1438), "1 to 1437 training images, 1438"),
        (lambda: read_images("digits", n=0), "1 to 1437 training images, 0"),
        (lambda: read_images("digits", Path("here")), "not read from a path"),
        (
            lambda: class_of(read_images("digits", n=3), 11),
            "none of the 3 images is of the class",
        ),
    ],
)
def test_mistakes_about_images(ask, what):
    with pytest.raises(RunError, match=what):
        ask()


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("sde", [None, VP(), DiscreteVP()])
def test_times_are_those_of_even_steps(sde, steps):
    process, sampler = reverse_process(sde, steps)
    times = grid_times(process, sampler.steps, sampler.spacing)
    expected = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    assert torch.allclose(times, expected * process.t_max, rtol=1e-14)


def test_the_process_without_networks_is_the_published_one():
    process, _ = reverse_process(None, 20)
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    beta = 1 - torch.cos(torch.pi * t / 2 / 1.008) ** 2
    assert torch.allclose(process.sigma(t) ** 2, beta, rtol=1e-12)
    assert torch.allclose(process.alpha(t) ** 2, 1 - beta, rtol=1e-9)


@pytest.mark.parametrize("sde", [EDM(), VE()])
def test_noise_levels_that_are_times_stay_as_they_are(sde):
    process, sampler = reverse_process(sde, 9)
    assert process == sde
    assert sampler.spacing == "karras"


def test_closed_forms():
    images, sde = read_images("digits", n=5).images, Cosine()
    assert type(closed_form("els", images, sde, 5)) is EquivariantLocalScore
    assert type(closed_form("ls", images, sde, 5, "circular")) is LocalScore
    assert type(closed_form("is", images, sde)) is IdealScore


def test_networks_of_one_process(digit_runs):
    runs = {"--unet": digit_runs["unet"], "--resnet": digit_runs["resnet"], "--other": None}
    opened = open_networks("digits", runs)
    assert list(opened) == ["--unet", "--resnet"]
    first, second = (subject.field for subject in opened.values())
    assert first.sde == second.sde
    late = with_process(first, reverse_process(first.sde, 10)[0])
    assert (late.sde.t_min, first.sde.t_min) == (0.1, 1e-3)
    x = torch.zeros(1, 1, 8, 8)
    assert torch.equal(late.denoise(x, 0.5), first.denoise(x, 0.5))


def test_machines_see_outside_what_networks_see():
    def subject(padding):
        net = MinimalUNet((1, 8, 8), (4, 8), padding, embedding=8)
        return Subject(PreconditionedField(net, VP(), sigma_data=1.0), None, None, {}, None)

    assert padding_of({}) == "zeros"
    assert padding_of({"--unet": subject("circular")}) == "circular"
    both = {"--unet": subject("circular"), "--resnet": subject("zeros")}
    with pytest.raises(RunError, match="--unet and --resnet differ in what they see outside"):
        padding_of(both)


def test_networks_that_do_not_fit(digit_runs, trained, tmp_path):
    def refused(dataset, runs, what, **settings):
        with pytest.raises(RunError, match=what):
            open_networks(dataset, runs, **settings)

    unet = digit_runs["unet"]
    refused("mnist", {"--unet": unet}, "--unet was trained on digits, not on mnist")
    refused("digits", {"--unet": trained}, "--unet takes points of shape")
    refused("digits", {"--unet": tmp_path / "no"}, "--unet: there is no model")
    refused("digits", {"--unet": unet}, "--unet: .* knows no classes", label=3)
    changes = ["field.network.fsizes=[4]", "train.steps=1", "train.checkpoint_every=1"]
    changes += ["sde.t_max=0.9", "optim.warmup=0"]
    other = Run.create(load_config("digits/minimal_unet", changes), tmp_path)
    other.train(quiet=True)
    both = {"--unet": unet, "--resnet": other.folder}
    refused("digits", both, "--resnet and --unet were trained under different processes")


def test_a_file_of_weights_says_itself_what_lies_outside(tmp_path):
    """Padding is that of machines, and of those files that are silent about it."""
    for name in ("net_circular.pt", "net.pt"):
        torch.save(state_of(MinimalResNet((1, 32, 32), 16, 1)), tmp_path / name)
        opened = open_networks("mnist", {"--resnet": tmp_path / name}, padding="zeros")
        assert padding_of(opened) == ("circular" if "circular" in name else "zeros")


def test_images_are_of_the_shape_that_networks_take(tmp_path):
    file = tmp_path / "net_zeros.pt"
    torch.save(state_of(MinimalResNet((1, 32, 32), 16, 1)), file)
    networks = open_networks("digits", {"--resnet": file})
    what = r"--resnet takes images of shape \(1, 32, 32\), those of digits are of .*\(1, 8, 8\)"
    with pytest.raises(RunError, match=what):
        read_images("digits", networks=networks)
