"""Classes of the user's own, named by import path."""

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from scorefield.cli.program import main
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.custom import Custom
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError, RunError
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run
from scorefield.runs.subject import open_subject
from scorefield.studies.networks import open_networks

MODULE = '''
import torch
from torch import nn

from scorefield import ArraySource
from scorefield import Regularizer
from scorefield import GaussianMixture

IMPORTED = True


class Net(nn.Module):
    """Two layers on a point and its level."""

    def __init__(self, dim: int, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(dim + 1, width), nn.SiLU(), nn.Linear(width, dim))

    def forward(self, x, level):
        level = torch.as_tensor(level, dtype=x.dtype).expand(len(x))
        return self.layers(torch.cat([x, level[:, None]], dim=1))


def pair(sde, distance: float = 2.0):
    return GaussianMixture(torch.tensor([[-distance, 0.0], [distance, 0.0]]), 0.5, sde=sde)


def points(n: int):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return ArraySource(x, x, "mine")


class Broken(nn.Linear):
    """Fails as named, in the constructor or later."""

    def __init__(self, where: str) -> None:
        super().__init__(2, 2)
        self.where = where
        if where == "constructor":
            raise KeyError("lost")

    def forward(self, x, level):
        if self.where == "forward":
            raise AttributeError("lost")
        return x


class BrokenPoints(ArraySource):
    """Points that cannot be drawn."""

    def __init__(self):
        super().__init__(torch.randn(9, 2), torch.randn(9, 2), "broken")

    def batch(self, noise, step, size):
        raise IndexError("lost")


class BrokenTerm(Regularizer):
    """A number that cannot be had."""

    name = "broken"

    def draw(self, field, law, noise, rows, step):
        return ()

    def evaluate(self, field, x, draws):
        return x @ x


class Small(Regularizer):
    """The mean square of the score."""

    name = "small"

    def draw(self, field, law, noise, rows, step):
        return ()

    def evaluate(self, field, x, draws):
        return field.score(x, torch.tensor(0.5)).square().mean()


number = 3
'''

RUN = """\
extends: toy/m0
description: a network of one's own
field: {{network: {{kind: custom, target: "{module}:Net", arguments: {{width: 6}}}}}}
train: {{steps: 2, batch_size: 8, checkpoint_every: 1, log_every: 1}}
"""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a module of the user's own, in the working directory."""
    name = "own_" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def config_file(module, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(RUN.format(module=module))
    return file


def test_a_network_of_ones_own_is_trained_and_opened_again(config_file, module, tmp_path):
    config = load_config(config_file)
    source = build_source(config)
    field = build_field(config, source)
    assert type(field.backbone).__name__ == "Net"
    assert field.backbone.width == 6
    again = build_field(config, source).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in field.state_dict().items())
    other = build_field(load_config(config_file, ["seed=1"]), source).state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in field.state_dict().items())

    run = Run.create(config, tmp_path / "runs")
    run.train(quiet=True)
    stored = yaml.safe_load((run.folder / "config_resolved.yaml").read_text())
    file = (tmp_path / "work" / f"{module}.py").read_bytes()
    assert stored["field"]["network"]["sha256"] == hashlib.sha256(file).hexdigest()
    assert Run.create(load_config(config_file), tmp_path / "runs").finished
    opened = Run.open(run.folder, trust_code=True).field()
    assert opened.score(torch.zeros(3, 2), 1.0).shape == (3, 2)
    assert open_subject(run.folder, trust_code=True).config == config
    assert "parameters" in dict(inspect(run.folder, trust_code=True)["field"])
    with pytest.raises(RunError, match="not square images"):
        open_networks("digits", {"--network": run.folder}, trust_code=True)


def test_code_that_a_run_brings_is_not_imported(config_file, module, tmp_path):
    run = Run.create(load_config(config_file), tmp_path / "runs")
    run.train(quiet=True)
    del sys.modules[module]
    weights = next((run.folder / "checkpoints").iterdir()) / "ema.safetensors"
    found = Run.open(run.folder)
    for use in (
        found.untrained,
        found.field,
        lambda: found.train(quiet=True),
        lambda: open_subject(run.folder),
        lambda: open_subject(weights),
        lambda: inspect(run.folder),
        lambda: open_networks("digits", {"--network": run.folder}),
    ):
        with pytest.raises(ConfigError, match="give --trust-code") as error:
            use()
        assert f"field.network.target is '{module}:Net'" in str(error.value)
        assert module not in sys.modules


@pytest.mark.slow
def test_the_command_line_asks_for_trust(config_file, module, tmp_path):
    run = Run.create(load_config(config_file), tmp_path / "runs")
    run.train(quiet=True)
    command = [sys.executable, "-m", "scorefield", "sample", str(run.folder), "--n", "2"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0
    assert refused.stderr.count("\n") == 1
    assert f"{module}:Net" in refused.stderr
    assert "--trust-code" in refused.stderr
    subprocess.run([*command, "--trust-code"], check=True, timeout=300)


@pytest.mark.parametrize("trusted", [False, True])
def test_studies_ask_for_trust(config_file, module, tmp_path, capsys, trusted):
    run = Run.create(load_config(config_file), tmp_path / "runs")
    run.train(quiet=True)
    out = ["--out", str(tmp_path / "results"), *(["--trust-code"] if trusted else [])]
    network = str(run.folder)
    for arguments in (
        ["patches", "--dataset", "digits", "--network", network],
        ["exterior", "--dataset", "digits", "--unet", network],
    ):
        sys.modules.pop(module, None)
        assert main(["analyze", *arguments, *out]) == 2
        told = capsys.readouterr().err
        # Once the network is open, it is found to be one of points in the plane.
        assert ("give --trust-code" in told) != trusted
        assert (module in sys.modules) == trusted


def test_code_that_has_changed_is_another_run(config_file, module, tmp_path):
    run = Run.create(load_config(config_file), tmp_path / "runs")
    (tmp_path / "work" / f"{module}.py").write_text(MODULE + "\n# changed\n")
    with pytest.raises(RunError, match=f"was made with another version of {module}:Net"):
        Run.create(load_config(config_file), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"whose file .* is not the one of the configuration"):
        Run.open(run.folder, trust_code=True).untrained()


def own(target, arguments="{}"):
    return f"field.network={{kind: custom, target: '{target}', arguments: {arguments}}}"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (own("torch.nn:Linear", "{out_features: x, in_features: 2}"), "TypeError: "),
        (own("fractions:Fraction", "{over: 2}"), "TypeError: "),
        (own("torch:relu", "{}"), "no signature found"),
        (own("broken_own:Net", "{}"), "cannot be imported: name 'absent' is not def"),
        (own("torch.nn:Linear", "{out_features: 2, in_features: 2}"), "TypeError: "),
        (own("MODULE:Broken", "{where: constructor}"), "field.network: KeyError: 'lost'"),
        (own("MODULE:Broken", "{where: forward}"), "field.network: AttributeError: lost"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_network_that_fails_is_one_sentence(module, tmp_path, capsys, override, told, dry):
    Path("broken_own.py").write_text("absent")
    override = override.replace("MODULE", module)
    root = tmp_path / "runs"
    options = ["--root", str(root), *(["--dry-run"] if dry else [])]
    assert main(["train", "toy/m0", override, *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: field.network")
    assert told in said
    assert said.count("\n") == 1
    assert not root.exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data={{kind: custom, target: '{}:BrokenPoints'}}", "data: IndexError: lost"),
        (
            "objective.custom.mine={{target: '{}:BrokenTerm', arguments: {{weight: 1.0}}}}",
            "objective.custom.mine: RuntimeError: ",
        ),
    ],
)
def test_what_fails_in_the_first_step_leaves_no_folder(module, tmp_path, capsys, override, told):
    root = tmp_path / "runs"
    assert main(["train", "toy/m0", override.format(module), "--root", str(root)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not root.exists()


def test_both_networks_of_a_hybrid_are_called(module, tmp_path):
    broken = f"{{kind: custom, target: '{module}:Broken', arguments: {{where: forward}}}}"
    for key in ("network", "low_network"):
        config = load_config("toy/m4", [f"field.{key}={broken}"])
        with pytest.raises(ConfigError, match=f"^field.{key}: AttributeError: lost"):
            Run.check(config)


def test_without_a_word_on_trust_nothing_is_imported(module):
    section = Custom(target=f"{module}:Net")
    with pytest.raises(ConfigError, match="give --trust-code"):
        section.constructor("field.network")
    assert module not in sys.modules


@pytest.mark.parametrize(("target", "name"), [("pair", "{}:pair"), ("points", "mine")])
def test_data_of_ones_own(module, target, name):
    arguments = {"pair": "distance: 3.0", "points": "n: 50"}[target]
    data = f"data={{kind: custom, target: '{module}:{target}', arguments: {{{arguments}}}}}"
    config = load_config("toy/m0", [data])
    source = build_source(config)
    assert source.name == name.format(module)
    assert source.shape == (2,)
    field = build_field(config, source)
    assert field.score(torch.zeros(1, 2), 1.0).shape == (1, 2)
    if target == "pair":
        assert source.truth.sde == field.sde
        assert source.std == pytest.approx((9 / 2 + 0.25) ** 0.5)


def test_a_regulariser_of_ones_own(module):
    term = f"{{target: '{module}:Small', arguments: {{weight: 0.5, every: 2}}}}"
    config = load_config("toy/m1", [f"objective.custom.mine={term}"])
    objective = build_objective(config, build_source(config))
    assert list(objective.regularizers) == ["asymmetry", "small"]
    assert objective.regularizers["small"].weight == 0.5
    assert objective.regularizers["small"].every == 2


@pytest.mark.parametrize(
    ("target", "arguments", "told"),
    [
        ("absent_module:Net", "{}", "there is no module 'absent_module'"),
        ("absent_package.module:Net", "{}", "No module named 'absent_package'"),
        ("{}:Nett", "{}", "has no attribute 'Nett'"),
        ("{}:number", "{}", "neither a class nor a function"),
        ("{}:Net", "{widht: 3}", "got an unexpected keyword argument 'widht'"),
        ("{}:points", "{}", "missing a required argument: 'n'"),
        ("{}:points", "{n: 4}", "makes a ArraySource, it must make a Module"),
        ("{} Net", "{}", "it must be text that matches"),
    ],
)
def test_what_is_wrong_with_a_target_is_one_sentence(module, target, arguments, told):
    target = target.format(module)
    network = f"{{kind: custom, target: '{target}', arguments: {arguments}}}"

    def build():
        config = load_config("toy/m0", [f"field.network={network}"])
        build_field(config, build_source(config))

    with pytest.raises(ConfigError) as error:
        build()
    sentence = str(error.value)
    assert told in sentence
    assert "field.network" in sentence
    assert target in sentence
    assert "\n" not in sentence


def test_a_module_that_cannot_be_imported_is_one_sentence(module, tmp_path):
    (tmp_path / "work" / "broken_own.py").write_text("import absent_module_of_mine\n")
    config = load_config("toy/m0", ["field.network={kind: custom, target: 'broken_own:Net'}"])
    with pytest.raises(ConfigError, match="cannot be imported: No module named 'absent_module_of"):
        build_field(config, build_source(config))


def test_a_class_of_ones_own_is_found_in_the_working_directory_only_after_all_else(tmp_path):
    script = textwrap.dedent(
        """
        from scorefield.config.resolve import load_config
        try:
            load_config("toy/m0", ["field.network={kind: custom, target: 'json:Net'}"])
        finally:
            import json
            assert hasattr(json, "loads")
        """
    )
    (tmp_path / "json.py").write_text("Net = 1\n")
    code = f"import sys; sys.path = [p for p in sys.path if p]\n{script}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize(
    "target",
    ["{}_nowhere:Net", "{}.inner:Net", "a..b:Net", "sys:exit", "bare:Net", "bad.a:Net"],
)
def test_a_module_that_cannot_be_found_is_refused(module, monkeypatch, target):
    monkeypatch.setitem(sys.modules, "bare", ModuleType("bare"))
    # Looking for a module imports the packages that it is in.
    Path("bad").mkdir()
    Path("bad", "__init__.py").write_text("from os import nothing")
    Path("bad", "a.py").write_text("Net = 1")
    target = target.format(module)
    with pytest.raises(ConfigError) as error:
        load_config("toy/m0", [f"field.network={{kind: custom, target: '{target}'}}"])
    assert str(error.value).startswith(f"field.network.target is {target!r}: ")
