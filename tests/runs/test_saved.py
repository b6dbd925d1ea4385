"""A field that is saved and loaded is the same field, bit for bit, whatever it is made of."""

import json
import pkgutil
from functools import reduce
from importlib import import_module
from inspect import isabstract

import pytest
import torch
from torch import nn

import scorefield as sf
import scorefield.networks
from scorefield.description import describe, rebuild
from scorefield.errors import CheckpointError, ConfigError, RunError, UserError
from scorefield.fields.labels import (
    IndexLabel,
    Label,
    LogNoiseLabel,
    ReversedTimeLabel,
    TimeLabel,
)
from scorefield.fields.parametrization import Parametrization, TablePrediction
from scorefield.networks.classifier import NoiseClassifier
from scorefield.networks.network import Network
from scorefield.runs.inspection import inspect
from scorefield.sde.base import SDE
from scorefield.training.checkpoint import weights_file

IMAGE = (1, 8, 8)
TINY = {"shape": IMAGE, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
NETWORKS = {
    "MLP": lambda: sf.MLP(2, hidden=8, depth=2, embedding=4, classes=3, seed=5),
    "UNet": lambda: sf.UNet(IMAGE, 8, [1, 2], attention=[4], dropout=0.1, classes=2),
    "NCSNpp": lambda: sf.NCSNpp(**TINY, channels=8, fir_kernel=(1, 2, 1), combine="cat"),
    "DDPM": lambda: sf.DDPM(**TINY, channels=32),
    "NCSN": lambda: sf.NCSN(IMAGE, 4, levels=7, activation="relu"),
    "NCSNv2": lambda: sf.NCSNv2(IMAGE, channels=4, levels=9, normalization="VarianceNorm"),
    "MinimalUNet": lambda: sf.MinimalUNet(IMAGE, (8, 16), "circular", "group", classes=2),
    "MinimalResNet": lambda: sf.MinimalResNet(IMAGE, 16, 1, last_kernel_size=3, add_one=False),
    "SymmetrizedMLP": lambda: sf.SymmetrizedMLP((3, 2), (1.0, 2.0), hidden=8, embedding=4),
    "EquivariantMLP": lambda: sf.EquivariantMLP((3, 2), 0.5, hidden=8, embedding=4),
    "EGNN": lambda: sf.EGNN((3, 2), hidden=8, depth=2, embedding=4),
}
TABLE = tuple(torch.linspace(1e-3, 0.04, 50).tolist())
PROCESSES = {
    "EDM": sf.EDM(0.01, 7.0, prior_mean=(0.5, -0.5)),
    "VE": sf.VE(0.02, 9.0),
    "VP": sf.VP(0.2, 15.0),
    "SubVP": sf.SubVP(t_min=1e-3),
    "Cosine": sf.Cosine(offset=0.0, margin=0.008, t_max=0.99),
    "DiscreteVP": sf.DiscreteVP(betas=TABLE),
    "DiscreteVP, zero": sf.DiscreteVP(betas=sf.zero_terminal_snr(TABLE)),
    "DiscreteVP, cosine": sf.DiscreteVP(betas="cosine", levels=40),
    "RectifiedFlow": sf.RectifiedFlow(0.01, 0.98),
}
PREDICTIONS = {
    "EDMScaling": sf.EDMScaling(0.3, sf.SigmaLabel()),
    "EnergyScaling": sf.EnergyScaling(0.3),
    "NoisePrediction": sf.NoisePrediction(sf.TimeLabel(49)),
    "ScorePrediction": sf.ScorePrediction(ReversedTimeLabel()),
    "DenoiserPrediction": sf.DenoiserPrediction(LogNoiseLabel()),
    "VPrediction": sf.VPrediction(sf.TimeLabel(1.0)),
    "VelocityPrediction": sf.VelocityPrediction(IndexLabel(12)),
    "TablePrediction": TablePrediction(20, 0.2, 9.0),
}


PACKAGES = [["scorefield", name] for name in ("fields", "networks", "sde")]


def alive(module):
    """Weights that leave no branch at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return module


def concrete(base):
    """The names of all public classes of a kind that can be made."""
    found, waiting = set(), [base]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            ours = kind.__module__.split(".")[:2] in PACKAGES
            public = ours and not kind.__name__.startswith("_")
            if public and not isabstract(kind):
                found.add(kind.__name__)
    return found


def same(field, found, dtype=torch.float32):
    """Asserts that two fields have the same values at all noise levels."""
    assert type(found) is type(field)
    assert (found.sde, found.domain, found.classes) == (field.sde, field.domain, field.classes)
    assert not found.training
    sde, generator = field.sde, torch.Generator().manual_seed(2)
    x = torch.rand(3, *field.domain.shape, generator=generator, dtype=dtype)
    t = torch.linspace(sde.t_min, sde.t_max, 5, dtype=dtype)[1:4]
    classes = None if field.classes is None else torch.tensor([0, 1, 1])
    with torch.no_grad():
        for known in (None, classes) if field.unlabelled else (classes,):
            value = found.denoise(x, t, known)
            assert torch.equal(value, field.eval().denoise(x, t, known))
            assert value.std() > 0


def there_and_back(field, folder, **settings):
    assert sf.save(field, folder) == folder
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "model.safetensors"]
    found = sf.load(folder, **settings)
    same(field, found)
    return found


def test_the_catalogues_are_whole():
    for module in pkgutil.iter_modules(scorefield.networks.__path__):
        import_module(f"scorefield.networks.{module.name}")
    assert concrete(Network) - {"NoiseClassifier"} == NETWORKS.keys()
    assert concrete(SDE) == {name.partition(",")[0] for name in PROCESSES}
    assert concrete(Parametrization) - {"Prediction"} == PREDICTIONS.keys()
    used = {type(kind.label).__name__ for kind in PREDICTIONS.values() if hasattr(kind, "label")}
    assert concrete(Label) == used


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_the_same_again(name, tmp_path):
    network = alive(NETWORKS[name]())
    domain = sf.Torus((3, 2), (1.0, 2.0)) if name == "SymmetrizedMLP" else None
    table = name.startswith("NCSN") and name != "NCSNpp"
    label = IndexLabel(7) if table else sf.SigmaLabel() if name == "NCSNpp" else LogNoiseLabel()
    shape = (3, 2) if name in ("EquivariantMLP", "EGNN") else None
    field = sf.PreconditionedField(
        network, sf.VE(0.02, 9.0), None, sf.NoisePrediction(label), domain, shape=shape
    )
    found = there_and_back(field, tmp_path / "m")
    assert found.backbone.arguments.keys() == network.arguments.keys()


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_and_prediction_is_the_same_again(process, tmp_path):
    for name, kind in PREDICTIONS.items():
        network = alive(sf.MLP(2, hidden=4, depth=1, embedding=4))
        field = sf.PreconditionedField(network, PROCESSES[process], parametrization=kind)
        assert there_and_back(field, tmp_path / name).parametrization == kind


def test_fields_of_fields_are_the_same_again(tmp_path):
    def network(seed=0, **settings):
        return alive(sf.MLP(2, hidden=4, depth=1, embedding=4, seed=seed, **settings))

    sde = sf.EDM(0.01, 7.0)
    plain = sf.PreconditionedField(network(classes=2), sde, 0.4)
    fields = {
        "sum": sf.PotentialField(network(outputs=1), sde, 0.4),
        "inner": sf.PotentialField(network(), sde, 0.4, head="inner"),
        "hybrid": sf.HybridField(
            sf.PotentialField(network(), sde, 0.4, head="denoising"),
            sf.PreconditionedField(network(1), sde, 0.5),
            0.7,
        ),
        "clipped": sf.ClippedField(plain, -0.5, 0.5, 0.9),
        "guided": sf.ClassifierFreeGuidance(plain, 1.5),
        "class": sf.OneClass(plain, 1),
        "interval": sf.guidance_interval(sf.ClassifierFreeGuidance(plain, 1.5), plain, 0.3, 2),
    }
    for name, field in fields.items():
        there_and_back(field, tmp_path / name)


def test_a_guided_field_is_the_same_again(tmp_path):
    network = alive(sf.UNet(IMAGE, 8, (1, 2)))
    classifier = alive(NoiseClassifier(IMAGE, 3, 1, 1, embedding=4))
    field = sf.PreconditionedField(network, sf.EDM(0.1, 7.0), 0.4)
    there_and_back(sf.ClassifierGuidance(field, classifier, 2.0), tmp_path / "m")


def test_a_field_in_double_precision_is_the_same_again(tmp_path):
    field = sf.PreconditionedField(alive(sf.MLP(2, hidden=4).double()), sf.VP(), 0.4)
    sf.save(field, tmp_path)
    same(field, sf.load(tmp_path), torch.float64)


def test_saving_changes_nothing_and_weights_that_are_tied_are_written(tmp_path):
    network = sf.MLP(2, hidden=4, depth=2, embedding=4)
    network.layers[1].bias = network.layers[0].bias
    field = sf.PreconditionedField(alive(network), sf.VP(), 0.4).train()
    before = {name: value.clone() for name, value in field.state_dict().items()}
    sf.save(field, tmp_path)
    assert field.training
    assert all(torch.equal(before[name], value) for name, value in field.state_dict().items())
    same(field, sf.load(tmp_path))


def test_what_is_there_is_kept_but_for_overwrite(tmp_path):
    field = sf.PreconditionedField(sf.MLP(2, hidden=4), sf.VP(), 0.4)
    (tmp_path / "notes.txt").write_text("mine")
    sf.save(field, tmp_path)
    with pytest.raises(RunError, match=r"model\.safetensors exists"):
        sf.save(field, tmp_path)
    sf.save(alive(field), tmp_path, overwrite=True)
    same(field, sf.load(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_card_says_what_it_is_and_loads_it(tmp_path):
    field = sf.PreconditionedField(alive(sf.MLP(2, hidden=4)), sf.VP(0.2, 15.0), 0.4)
    sf.save(field, tmp_path / "mine", about={"data": "rings | 2", "steps": 300})
    card = (tmp_path / "mine" / "README.md").read_text()
    for part in ("VP(beta_min=0.2", "EDMScaling(sigma_data=0.4", "| points | 2 |", "| steps | 300"):
        assert part in card
    assert "| data | rings / 2 |" in card
    assert card.startswith("---\nlibrary_name: scorefield\n")
    code = card.partition("```python\n")[2].partition("```")[0]
    scope = {}
    exec(code.replace('"mine"', repr(str(tmp_path / "mine"))), scope)
    assert scope["x"].shape == (16, 2)


OWN = '''
from torch import nn


class Net(nn.Module):
    """A network of a user's own."""

    def __init__(self, width, shift=0.5):
        super().__init__()
        self.width, self.shift = width, shift
        self.inward, self.outward = nn.Linear(2, width), nn.Linear(width, 2)

    def forward(self, x, label):
        return self.outward(self.inward(x) + label[:, None]) + self.shift


class Forgetful(Net):
    def __init__(self, size):
        super().__init__(size)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of a user's own, and the folder that it is in."""
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_net", raising=False)
    return import_module("own_net"), tmp_path


def wrapped(net, **settings):
    convention = {"predicts": "velocity", "time": "1-t", **settings}
    return sf.wrap(net.eval(), shape=(2,), **convention)


def test_a_module_of_the_users_own_is_loaded_only_if_it_is_trusted(own):
    module, folder = own
    field = wrapped(module.Net(5, shift=0.25))
    sf.save(field, folder / "m")
    with pytest.raises(ConfigError, match=r"'own_net:Net', code that is not part of scorefield"):
        sf.load(folder / "m")
    found = sf.load(folder / "m", trust_code=True)
    same(field, found)
    assert found.backbone.net.shift == 0.25
    assert "trust_code=True" in (folder / "m" / "README.md").read_text()
    (folder / "own_net.py").write_text(OWN + "# changed since\n")
    with pytest.raises(ConfigError, match="sha256"):
        sf.load(folder / "m", trust_code=True)


def test_what_cannot_be_made_again_is_one_sentence(own, tmp_path):
    class Local(nn.Linear):
        pass

    module, _ = own
    target = sf.Gaussian(torch.zeros(2), 1.0, sde=sf.VP())
    cases = [
        (wrapped(module.Forgetful(3)), "Forgetful does not keep its argument size: set self.size"),
        (target, "only numbers, text and modules"),
        (sf.wrap(lambda x, label: x, shape=(2,), predicts="velocity", time="t"), "is a function"),
        (sf.PreconditionedField(nn.Sequential(nn.Identity()), sf.VP(), 1.0, shape=(2,)), "args"),
        (sf.PreconditionedField(sf.MLP(2), sf.VP(), 1.0).requires_grad_(False).backbone, "field"),
    ]
    for field, match in cases:
        with pytest.raises(UserError, match=match):
            sf.save(field, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match=r"Local, whose class cannot be imported|does not keep"):
        sf.save(wrapped_like(Local(2, 2)), tmp_path / "m")


def wrapped_like(net):
    return sf.PreconditionedField(net, sf.VP(), 1.0, shape=(2,))


MLP = "scorefield.networks.mlp:MLP"


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({}, "has no target"),
        ({"target": MLP, "arguments": {"dim": 2}}, "not a field"),
        ({"target": MLP, "arguments": {"dim": -2}}, "cannot be made"),
        ({"target": MLP, "arguments": {"nonsense": 2}}, "cannot be made"),
        ({"target": "scorefield.networks.mlp:nn", "arguments": {}}, "no part of a field"),
        ({"target": "scorefield.networks.new:Net", "arguments": {}}, "this version has not"),
        ({"target": "scorefield.files:delete_folder", "arguments": {"path": "."}}, "no part of"),
        ({"target": "scorefield.archives:os.system", "arguments": {}}, "this version has not"),
        ({"target": "scorefield.:x", "arguments": {}}, "this version has not"),
        ({"target": 3, "arguments": {}}, "has no target"),
        (None, "says neither its configuration nor the parts"),
    ],
)
def test_a_description_that_is_none_is_one_sentence(document, match, tmp_path):
    content = weights_file({"w": torch.zeros(1)}, 0, None, document)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as error:
        sf.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def leaves(document, place=()):
    """The places of all values in a document."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*place, key))


DAMAGED = [None, "x", True, -1, 0, 3, 0.5, 1e30, float("nan"), [], [2, 3], ["x"], {}]
DESCRIBED = {
    "edm": lambda: sf.PreconditionedField(sf.MLP(2, hidden=4), sf.EDM(), 0.5),
    "table": lambda: sf.PotentialField(
        sf.MLP(2, hidden=4, outputs=1),
        sf.DiscreteVP(betas=(0.1, 0.2, 0.3), levels=3),
        parametrization=sf.NoisePrediction(TimeLabel(2)),
    ),
    "torus": lambda: sf.PreconditionedField(
        sf.SymmetrizedMLP((1, 2), 1.0, hidden=4, embedding=4),
        sf.VE(),
        parametrization=sf.ScorePrediction(),
        domain=sf.Torus((1, 2), 1.0),
    ),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_damaged_description_is_one_sentence_or_a_field(name):
    """Whatever is put in the place of a value."""
    whole = json.loads(json.dumps(describe(DESCRIBED[name]())))
    refused = 0
    for place in leaves(whole):
        for value in (*DAMAGED, {"target": "scorefield.sde.exploding:EDM", "arguments": {}}):
            document = json.loads(json.dumps(whole))
            reduce(lambda part, key: part[key], place[:-1], document)[place[-1]] = value
            try:
                field = rebuild(document, "the file")
            except (CheckpointError, ConfigError):
                refused += 1
                continue
            try:
                x = sf.Heun(steps=2).sample(field, n=2, seed=0)
            except UserError:
                continue
            assert x.shape == (2, *field.domain.shape), (place, value)
    assert refused > 100


@pytest.mark.parametrize("target", ["os:system", "builtins:exec", "subprocess:run"])
def test_code_that_a_file_names_is_not_run(target, tmp_path):
    document = {"target": target, "arguments": {"command": f"touch {tmp_path}/run"}}
    content = weights_file({"w": torch.zeros(1)}, 0, None, document)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="code that is not part of scorefield"):
        sf.load(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sha256", [None, 3, ["a"]])
def test_code_without_its_hash_is_not_run_even_if_it_is_trusted(sha256):
    document = {"target": "os:system", "arguments": {"command": "true"}, "sha256": sha256}
    with pytest.raises(CheckpointError, match="without the sha256 of its file"):
        rebuild(document, "x", trust_code=True)


def test_a_description_without_end_is_one_sentence():
    document = {"target": MLP, "arguments": {}}
    for _ in range(2000):
        document = {"target": MLP, "arguments": {"dim": document}}
    with pytest.raises(CheckpointError, match="without end"):
        rebuild(document, "x")


def test_weights_of_another_field_are_one_sentence(tmp_path):
    field = sf.PreconditionedField(sf.MLP(2, hidden=4), sf.VP(), 0.4)
    other = sf.PreconditionedField(sf.MLP(2, hidden=5), sf.VP(), 0.4)
    content = weights_file(field.state_dict(), 0, None, describe(other))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="in the shape"):
        sf.load(tmp_path)


def test_the_description_is_plain_json():
    field = sf.PreconditionedField(sf.MLP(2), sf.DiscreteVP(betas=TABLE), 0.4)
    document = describe(field)
    assert json.loads(json.dumps(document)) == document
    again = rebuild(document, "x")
    assert (again.sde, again.parametrization) == (field.sde, field.parametrization)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "mine"
    field = sf.PreconditionedField(sf.MLP(2, hidden=8, depth=1), sf.EDM(0.01, 9.0), 0.5)
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    settings = {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "quiet": True}
    return folder, sf.fit(field, data, folder=folder, **settings).field


def test_the_folder_of_a_training_is_its_field(fitted):
    folder, field = fitted
    newest = folder / "checkpoints" / "step_00000004"
    for path in (folder, newest, newest / "ema.safetensors"):
        same(field, sf.load(path))
        assert inspect(path)
    kind = dict(inspect(newest / "ema.safetensors")["field"])["kind"]
    assert kind == "scorefield.fields.preconditioned:PreconditionedField"
    raw = sf.load(folder, weights="raw")
    last, averaged = raw.backbone.last.weight, field.backbone.last.weight
    assert torch.equal(last, sf.load(newest / "model.safetensors").backbone.last.weight)
    assert not torch.equal(last, averaged)


def test_a_checkpoint_that_lost_its_state_is_no_model(fitted, tmp_path):
    import shutil

    shutil.copytree(fitted[0] / "checkpoints" / "step_00000004", tmp_path / "c")
    (tmp_path / "c" / "state.pt").unlink()
    with pytest.raises(CheckpointError, match=r"state\.pt is missing"):
        sf.load(tmp_path / "c")


def test_a_saved_field_is_trained_further(fitted, tmp_path):
    sf.save(fitted[1], tmp_path / "m")
    field = sf.load(tmp_path / "m")
    sf.fit(field, torch.randn(32, 2), steps=1, batch_size=8, quiet=True)
    assert not torch.equal(field.backbone.last.weight, fitted[1].backbone.last.weight)
