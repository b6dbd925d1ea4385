"""Everything runs on a device that is not the default one: shown on a stand-in for a GPU, whose
results are the CPU's, which computes both.
"""

import json
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scorefield as sf
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.resolve import load_config
from scorefield.data.image_files import Images, Splits
from scorefield.data.images import ImageSource
from scorefield.evaluation.evaluate import measure_floors, measure_samples
from scorefield.evaluation.protocol import Benchmark, protocol_of
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.training.result import Fit
from scorefield.training.settings import TrainSettings
from scorefield.training.step import Stepper
from scorefield.training.trainer import Trainer
from tests.elsewhere import ELSEWHERE, DeviceError, Elsewhere, Notes, elsewhere
from tests.laws.cases import closed_forms, targets
from tests.placed import placed

SMALL = [
    "objective.loops.rows=4",
    "objective.asymmetry.rows=4",
    "objective.boundary.rows=4",
    "objective.cycles.points=16",
    "objective.cycles.cycles=2",
]

# What a step reads, where the number of rows of a call depends on numbers: the cycles that were
# found.
COUNTS = ("calculus/circulation.py",)


def made(preset: str, *changes: str) -> tuple[ScoreField, sf.Objective, sf.DataSource]:
    config = load_config(preset, changes)
    terms = {name for name, term in config.objective if term is not None}
    source = build_source(config)
    small = load_config(preset, [*changes, *(s for s in SMALL if s.split(".")[1] in terms)])
    return build_field(small, source), build_objective(small, source), source


def points(source: sf.DataSource, field: ScoreField, number: int) -> tuple[Tensor, Tensor | None]:
    classes = None if field.classes is None else source.batch_classes(Noise(0), number, 24)
    return source.batch(Noise(0), number, 24), classes


def step(
    field: ScoreField, objective: sf.Objective, x: Tensor, classes: Tensor | None, number: int
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The terms and gradients of one training step."""
    t, z = objective.draw(field, Noise(0), torch.arange(len(x), device=x.device), number)
    losses = objective(field, Batch(x, t, z, classes), Noise(0), number)
    weights = list(field.parameters())
    slopes = torch.autograd.grad(losses.total, weights, materialize_grads=True, allow_unused=True)
    return losses.terms, list(slopes)


PRESETS = [
    *(f"toy/m{k}" for k in range(5)),
    "digits/m0",
    "digits/m3",
    *(pytest.param(f"digits/m{k}", marks=pytest.mark.slow) for k in (1, 2, 4)),
    "toy/m1_both",
    "toy/m3_cycle_len345",
    "digits/ddpm_discrete_vp",
    "digits/minimal_resnet",
    "atoms/consistency",
    "atoms/consistency_with_analytical_guide",
    "atoms/analytical_regression",
    "atoms/fokker_planck",
]


@pytest.mark.parametrize("preset", PRESETS)
def test_training_steps(preset):
    field, objective, source = made(preset)
    x, classes = points(source, field, 64)
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    torch.manual_seed(0)
    expected, slopes = step(field, objective, x, classes, 64)
    with elsewhere() as notes:
        field, objective = field.to(ELSEWHERE), objective.to(ELSEWHERE)
        x, classes = x.to(ELSEWHERE), classes if classes is None else classes.to(ELSEWHERE)
        step(field, objective, x, classes, 0)  # puts tables and oracles where they are needed
        for name, value in objective.named_buffers():
            value.copy_(state[name])
        notes.clear()
        torch.manual_seed(0)
        found, there = step(field, objective, x, classes, 64)
        assert notes.writes == []
        assert notes.stray == []
        assert [place for place in notes.reads if not place.startswith(COUNTS)] == []
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5)
        mine, theirs = (torch.cat([s.flatten() for s in all]) for all in (slopes, there))
        assert float((mine - theirs.cpu()).norm()) <= 1e-4 * float(mine.norm())


TRAININGS = {
    **{preset: (preset, (), {}) for preset in ("toy/m0", "toy/m1", "toy/m2")},
    "toy/m4": ("toy/m4", ("objective.cycles.neighbours=4",), {}),
    "digits/m0": ("digits/m0", (), {}),
    "data of the host": ("digits/m0", (), {"data_on_device": 0}),
    "classes": ("digits/m0", ("field.network.classes=true",), {}),
    "dropout": ("digits/ddpm_discrete_vp", ("field.network.dropout=0.1",), {}),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_neither_waits_nor_copies(name):
    preset, changes, settings = TRAININGS[name]

    def stepper(engine: sf.Engine) -> Stepper:
        field, objective, source = made(preset, *changes)
        given = TrainSettings(batch_size=8, steps=100)
        return Stepper(field.train(), source, objective, sf.Optim(), given, Noise(0), engine)

    here = stepper(sf.Engine("cpu", **settings))
    expected = [here.take(step) for step in range(3)]
    with elsewhere() as notes:
        there = stepper(Elsewhere(**settings))
        for step in range(2):
            there.take(step)  # puts tables where they are needed
        notes.clear()
        found = there.take(2)
        assert notes == Notes()
        for step in (2, 77):
            # Seeds of dropout stay on the host.
            drawn = [getattr(d, "near", d) for d in there._ahead(step)]
            assert all(map(torch.equal, drawn, here._ahead(step)))
    # The masks of dropout are those of the device.
    tolerance = 0.5 if here.dropout else 1e-5
    for term, value in expected[2].items():
        assert float(found[term].near) == pytest.approx(float(value), rel=tolerance)


# The stand-in's weights do take copies.
@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_a_whole_training_goes_on_where_it_is_taken(tmp_path):
    """There as here, and from the checkpoint of one on the other."""

    def train(engine: sf.Engine, folder: str, steps: int) -> Fit:
        field, objective, source = made("toy/m1")
        settings = TrainSettings(steps, 8, checkpoint_every=2, log_every=1)
        trained = Trainer(
            field, source, objective, sf.Optim(), settings, folder=tmp_path / folder, quiet=True,
            engine=engine,
        )  # fmt: skip
        return trained.run()

    expected = train(sf.Engine("cpu"), "here", 4)
    train(sf.Engine("cpu"), "moved", 2)
    with elsewhere():
        found = [train(Elsewhere(), folder, 4) for folder in ("there", "moved")]
        losses = [[row["loss"] for row in fit.history] for fit in (expected, *found)]
        weights = [
            [p.detach().cpu().flatten() for p in fit.field.parameters()]
            for fit in (expected, *found)
        ]
    for there in losses[1:]:
        assert there == pytest.approx(losses[0], rel=1e-5)
    for there in weights[1:]:
        torch.testing.assert_close(torch.cat(there), torch.cat(weights[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize("most", [0, 10**6])
def test_points_made_of_bytes_are_the_same_there(centered, dequantize, most):
    pixels = Images(torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8), None)
    splits = Splits(pixels, pixels)
    source = ImageSource(lambda: splits, "b", (1, 8, 8), None, centered, True, dequantize)
    steps = torch.tensor([0, 3])
    expected = source.batch(Noise(0), steps, 4)
    with elsewhere() as notes:
        there = source.on(ELSEWHERE, most)
        read = [r.to(ELSEWHERE) for r in there.read(Noise(0), steps, 4)]
        notes.clear()
        found = there.finish(read, Noise(0))
        assert notes == Notes()
        assert torch.equal(found.near, expected)


def test_the_stand_in_finds_what_a_gpu_would_not_take_or_waits_for():
    with elsewhere() as notes:
        x = torch.arange(3.0, device=ELSEWHERE)
        with pytest.raises(DeviceError):
            x + torch.ones(3)
        assert len(notes.stray) == 1
        for read in (lambda: float(x.sum()), lambda: x[x > 0], x.cpu, x.tolist, x.nonzero):
            notes.clear()
            read()
            assert len(notes.reads) == 1
        torch.tensor([1.0], device=ELSEWHERE)
        assert len(notes.writes) == 1
        assert (x * 2).sum().device == ELSEWHERE


STRAY = """
import torch

def stray(x):
    return torch.arange(3)

def passed_on(x):
    return stray(2.0)
"""


def test_the_default_device_is_refused_to_code_that_was_told_one():
    package: dict[str, Any] = {}
    exec(compile(STRAY, str(Path(sf.__file__).parent / "planted.py"), "exec"), package)
    with placed("stand-in") as device:
        x, network = torch.ones(3), sf.MLP(3, hidden=8, depth=1)
        assert {x.device, *(p.device for p in network.parameters())} == {device}
        assert x.numpy().tolist() == [1.0, 1.0, 1.0]
        assert package["stray"](2.0).device == device
        for function in ("stray", "passed_on"):
            for given in (x, network):
                with pytest.raises(DeviceError, match=r"arange on the default .*planted"):
                    package[function](given)


def field_of(name: str) -> ScoreField:
    torch.manual_seed(0)
    if name == "torus":
        return sf.PseudoAtoms([[0.25, 0.2], [0.75, 0.6]], std=0.05, sde=sf.VE(0.01, 2.0))
    if name == "hybrid":
        return sf.HybridField(field_of("potential"), field_of("network"), 0.5)
    net = sf.MLP(3, hidden=8, depth=1, embedding=4)
    kind = {"network": sf.PreconditionedField, "potential": sf.PotentialField}[name]
    return kind(net, sf.EDM(0.01, 10.0), sigma_data=1.0)


SAMPLERS = [
    sf.Euler(3),
    sf.Heun(3),
    sf.DDIM(3),
    sf.DPMSolverPlusPlus2M(4),
    sf.PredictorCorrector(3),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", ["network", "potential", "hybrid"])
def test_steps_of_a_sampler_do_not_wait(kind, sampler):
    field = field_of(kind)
    expected = sampler.sample(field, 5)
    with elsewhere() as notes:
        field.to(ELSEWHERE)
        sampler.sample(field, 5)
        notes.clear()
        index = torch.arange(5, device=ELSEWHERE)
        found = sampler.sample(field, index=index)
        assert notes.writes == []
        # The host has the times of the grid.
        assert [place for place in notes.stray if not place.startswith("samplers/grid.py")] == []
        # Once a block, whether all states are finite.
        assert len(notes.reads) <= 2, notes.reads
        torch.testing.assert_close(found.cpu(), expected)


PROTOCOL = sf.Protocol(sigmas=(0.1, 1.0), n=8, dtype=torch.float32)
DIAGNOSTICS = {
    "exterior derivative": sf.exterior_derivative,
    "probed": partial(sf.relative_asymmetry, probes=2),
    "loops": sf.loop_circulation,
    "fokker planck": sf.fokker_planck_error,
    "consistency": sf.consistency_error,
    "path gap": sf.path_gap,
}


def data_of(field: ScoreField) -> Tensor:
    return Noise(1).uniform("x", field.domain.shape, torch.arange(40))


@pytest.mark.parametrize("kind", ["network", "torus"])
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_diagnostics(name, kind):
    field = field_of(kind)
    x = data_of(field)
    expected = DIAGNOSTICS[name](field, x, PROTOCOL)
    with elsewhere():
        found = DIAGNOSTICS[name](field.to(ELSEWHERE), x.to(ELSEWHERE), PROTOCOL)
    for mine, theirs in zip(found.estimates, expected.estimates, strict=True):
        assert mine.value == pytest.approx(theirs.value, rel=1e-3, abs=1e-5)


LOOSE = {"rtol": 1e-2, "atol": 1e-2}
FLOWS = {
    "log_prob": lambda f, x: sf.log_prob(f, x, **LOOSE).value,
    "probed log_prob": lambda f, x: (
        sf.log_prob(f, x, **LOOSE, trace="probes", probes="variance_reduced").value
    ),
    "encode": lambda f, x: sf.encode(f, x, **LOOSE).x,
    "adaptive": lambda f, x: sf.ProbabilityFlow(**LOOSE).sample(
        f, index=torch.arange(3, device=x.device)
    ),
}


@pytest.mark.parametrize("kind", ["network", pytest.param("torus", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FLOWS)
def test_adaptive_integration(name, kind):
    field = field_of(kind)
    x = data_of(field)[:3]
    expected = FLOWS[name](field, x)
    with elsewhere() as notes:
        field, x = field.to(ELSEWHERE), x.to(ELSEWHERE)
        FLOWS[name](field, x)
        notes.clear()
        found = FLOWS[name](field, x)
        assert notes.writes == notes.stray == []
    torch.testing.assert_close(found.near, expected, rtol=1e-3, atol=1e-3)


SDE = sf.EDM(0.01, 10.0)
FORMS = {**{f"target {k}": v for k, v in targets(SDE).items()}, **closed_forms(SDE)}


@pytest.mark.parametrize("name", FORMS)
def test_closed_forms(name):
    field = deepcopy(FORMS[name])
    x = Noise(1).normal("x", field.domain.shape, torch.arange(3))
    t = field.sde.time(torch.tensor([0.1, 0.5, 2.0]))
    expected = field.score(x, t)
    with elsewhere():
        found = field.to(ELSEWHERE).score(x.to(ELSEWHERE), t.to(ELSEWHERE))
    torch.testing.assert_close(found.near, expected, rtol=1e-4, atol=1e-4)


METRICS = {
    "frechet": sf.frechet_distance,
    "mmd": sf.mmd,
    "sliced": sf.sliced_wasserstein,
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name):
    x, y = (Noise(k).normal("x", (3,), torch.arange(40)) for k in (1, 2))
    expected = METRICS[name](x, y)
    with elsewhere():
        found = METRICS[name](x.to(ELSEWHERE), y.to(ELSEWHERE))
    assert found.value == pytest.approx(expected.value, rel=1e-4)


DRAWS = {
    "normal": partial(Noise(3).normal, "p", (5,)),
    "uniform": partial(Noise(3).uniform, "p", (5,)),
    "signs": partial(Noise(3).signs, "p", (5,)),
    "integers": partial(Noise(3).integers, "p", 7, (5,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_do_not_wait(name):
    draw = DRAWS[name]
    expected = draw(torch.arange(4), 9)
    with elsewhere() as notes:
        found = draw(torch.arange(4, device=ELSEWHERE), 9)
        assert notes == Notes()
    assert torch.equal(found.near, expected)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["toy/m0", "atoms/no_regularizer"])
def test_distances_are_those_of_the_cpu_there(preset):
    config = load_config(preset, ["eval.samples=40", "eval.nfes=[2]", "eval.pairs=2"])
    source = build_source(config)
    field = build_field(config, source).requires_grad_(False)
    benchmark = Benchmark(source, protocol_of(config))
    expected = measure_samples(field, benchmark, {})
    floors = measure_floors(benchmark)
    with elsewhere():
        found = measure_samples(field.to(ELSEWHERE), benchmark, {})
        assert measure_floors(benchmark, device=ELSEWHERE).keys() == floors.keys()
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.metric, mine.features) == (theirs.metric, theirs.features)
        assert mine.estimate.value == pytest.approx(theirs.estimate.value, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_is_rehearsed_on_a_cpu(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    command = [sys.executable, script, tmp_path, "--device", "cpu", "--quick"]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    sections = {row["section"] for row in rows if row["value"] is not None}
    assert sections == {
        "noise", "models", "ncsnpp", "potentials", "precisions", "sampling", "els", "derivatives"
    }  # fmt: skip
    assert "| ncsnpp |" in (tmp_path / "gpu.md").read_text()
