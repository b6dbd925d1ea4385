"""Pages whose code needs files or models: it runs as it is printed, and no code is left out."""

import math
import pickle
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import typer
from PIL import Image

import scorefield as sf
from scorefield.cli.app import app
from scorefield.cli.program import main
from scorefield.config.resolve import load_config
from scorefield.data.arrays import LabelledSource
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.protocol import Protocol
from scorefield.interop import edm
from scorefield.interop.score_sde.refinenet_names import build_refinenet
from scorefield.runs.run import Run
from scorefield.training.noise_classifier import train_noise_classifier
from tests.interop import originals
from tests.interop.foreign import state_of
from tests.pages import ROOT, code_of, run

EXECUTED = {
    "test_extending.py": ["extending", "own_*"],
    "test_readme.py": [
        "../README", "check", "choose_regularizer", "choose_sampler", "composition",
        "getting_started", "gpu", "likelihood", "mixing", "models", "posteriors", "reproducibility",
        "score", "vectors",
    ],
    "test_pages.py": [
        "data", "first_hour", "foreign_models", "processes", "plotting", "score_sde",
    ],
}  # fmt: skip
"""The pages with Python, by the file of tests that runs it; notebooks are run as such."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    (page.name, line.removeprefix("$ scorefield ").partition(" #")[0])
    for page in PAGES
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("$ scorefield ")
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory of a reader."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_every_page_is_run_by_a_test():
    with_code = {p.resolve() for p in PAGES if re.search(r"```\{?py", p.read_text())}
    listed = [name for names in EXECUTED.values() for name in names]
    found = {p.resolve() for name in listed for p in (ROOT / "docs").glob(f"{name}.md")}
    assert with_code == found | {(ROOT / "README.md").resolve()}
    for file, names in EXECUTED.items():
        text = (ROOT / "tests" / file).read_text()
        assert all(name.removeprefix("../") in text for name in names)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_of_a_page_has_these_options(here, page, line):
    arguments = [part for part in shlex.split(line) if part not in ("…", "...")]
    if len(arguments) == 1 and arguments[0].startswith("-"):
        return
    command = typer.main.get_command(app)
    context = command.make_context("scorefield", list(arguments))
    while hasattr(command, "commands"):
        _, command, arguments = command.resolve_command(context, arguments)
        context = command.make_context(command.name, list(arguments), parent=context)


@pytest.mark.slow
def test_the_python_of_the_page_on_images_runs(here):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 20), dtype=np.uint8)
    Path("my_cats").mkdir()
    for k, one in enumerate(pixels):
        Image.fromarray(one).resize((64, 64)).save(f"my_cats/{k}.png")
    network = sf.UNet((3, 64, 64), channels=8, multipliers=(1,))
    labels = np.arange(40) % 2
    scope = {"sf": sf, "np": np, "h5py": h5py, "images": pixels, "labels": labels}
    scope |= {"x": pixels, "y": labels, "x_test": pixels[:9], "y_test": labels[:9]}
    scope["field"] = sf.PreconditionedField(network, sf.EDM(), 0.5, shape=(3, 64, 64))
    run(code_of("docs/data.md").replace("steps=10_000", "steps=1, batch_size=2"), scope)
    assert scope["source"].shape == (3, 64, 64)
    for file, classes in (("a.npy", None), ("b.npz", 2), ("c.npz", 2), ("d.h5", 2)):
        source = sf.images(file, size=(28, 20), centered=True)
        assert (source.shape, source.classes) == ((1, 28, 20), classes)


@pytest.mark.slow
def test_the_python_of_the_page_on_the_first_hour_runs_and_its_model_is_checked(here):
    own, model = code_of("docs/first_hour.md").split("import torch\n")
    run(own.replace("steps=300", "steps=3"), {})
    assert sf.load("runs/mine").domain.shape == (1, 8, 8)
    assert Path("samples.png").stat().st_size > 0
    run("import torch\n" + model.replace("range(150)", "range(2)"), {})
    assert main(["check", "my_pipeline", "--data", "my_digits", "--budget", "2s"]) == 0
    assert Path("reports/check/index.html").is_file()


class EDMPrecond(torch.nn.Module):
    """What a published pickle of EDM holds: weights by name, and how the network was made."""

    def __init__(self, state, **arguments):
        super().__init__()
        self.state, self.init_kwargs = state, arguments

    def state_dict(self):
        return self.state


def test_the_python_of_the_page_on_other_projects_runs(here):
    case, state = originals.CASES["edm_ncsnpp"], state_of("edm_ncsnpp", torch.float32)
    arguments = {name: value for name, value in case.items() if name != "class"}
    with open("edm-cifar10-32x32-uncond-vp.pkl", "wb") as file:
        pickle.dump({"ema": EDMPrecond(state, **arguments)}, file)
    run(code_of("docs/foreign_models.md"), {})
    read, known = edm.load("my_edm"), edm.field_of(case, state)
    x, t = torch.randn(2, *known.domain.shape), torch.tensor([0.1, 3.0])
    torch.testing.assert_close(read.denoise(x, t), known.denoise(x, t))


def test_the_python_of_the_page_on_processes_runs(here):
    ring = sf.GaussianMixture.ring(sde=sf.EDM())
    field = sf.PreconditionedField(sf.MLP(dim=2, hidden=8), ring.sde, sigma_data=ring.std)
    run(code_of("docs/processes.md"), {"sf": sf, "field": field, "data": ring})
    assert sf.load("runs/mine").sde == ring.sde


@pytest.mark.slow
def test_the_python_of_the_page_on_pictures_of_runs_runs(here):
    protocol = Protocol(nfes=(4,), samples=48, pairs=3, sigmas=(0.5, 2.0), points=2, draws=2)
    small = ("train.steps=3", "train.log_every=1", "train.batch_size=8", "optim.warmup=1")
    for name in ("digits/m0", "digits/m1", "digits/m2"):
        config = load_config(name, (*small, "field.network.channels=8", f"name={name}"))
        made = Run.create(config, Path("runs"))
        made.train(quiet=True)
        evaluate(made, protocol=protocol)
    # What is before it runs in the tests of other pages.
    _, first, rest = code_of("docs/plotting.md").partition('sf.plot.samples("runs/')
    run(first + rest, {"sf": sf})


def published(path):
    """Writes a small checkpoint in the layout of score_sde, and returns its configuration."""
    config = {
        "training": {"sde": "vesde", "continuous": False},
        "data": {"image_size": 8, "num_channels": 3, "centered": False},
        "model": {
            "name": "ncsnv2_64", "nf": 4, "num_scales": 5, "sigma_min": 0.1, "sigma_max": 1.0,
            "nonlinearity": "elu", "normalization": "InstanceNorm++",
        },
    }  # fmt: skip
    network, pairs = build_refinenet(config)
    model = {f"module.{theirs}": network.state_dict()[ours] for theirs, ours in pairs}
    ema = {"decay": 0.9, "num_updates": 1, "shadow_params": list(model.values())}
    sigmas = {"module.sigmas": torch.linspace(0, -math.log(10), 5, dtype=torch.float64).exp()}
    torch.save({"model": {**sigmas, **model}, "ema": ema, "step": 1}, path)
    return config


@pytest.mark.slow
def test_the_python_of_the_page_on_score_sde_runs(here, capsys):
    """The known part of samples is exact."""
    random, shape = torch.Generator().manual_seed(0), (3, 8, 8)
    images, labels = torch.rand(40, *shape, generator=random), torch.arange(40) % 10
    data = LabelledSource(images, images[:8], labels, labels[:8], "squares")
    sizes = {"multiplier": 1, "blocks": 1, "embedding": 16}
    matrix = torch.randn(5, *shape, generator=random)
    trained = train_noise_classifier(data, sf.VE(0.1, 1.0), sizes=sizes, steps=2)
    network = sf.UNet(shape, channels=8, multipliers=(1,), classes=10)
    scope = {
        "torch": torch,
        "config": published(here / "checkpoint_24.pth"),
        "images": images[:16],
        "gray": images[:16].mean(dim=1, keepdim=True),
        "matrix": matrix,
        "y": torch.einsum("mchw,nchw->nm", matrix, images[:16]),
        "classifier": trained.network,
        "conditional": sf.PreconditionedField(network, sf.VE(0.1, 1.0), 0.5, shape=shape),
    }
    code = code_of("docs/score_sde.md").replace('"ve/cifar10_ncsnpp_continuous"', "config")
    code = code.replace("(1000,", "(3,").replace("n=64", "n=2")
    parts = code.partition("guided = ")
    run(parts[0], scope)
    known = torch.einsum("mchw,nchw->nm", matrix, scope["x"])
    torch.testing.assert_close(known, scope["y"], rtol=1e-4, atol=1e-3)
    run("guided = " + parts[2], scope)
    assert scope["x"].shape == (16, *shape)
    assert scope["code"].x.shape == scope["x"].shape
    assert capsys.readouterr().out.count("±") >= 2
